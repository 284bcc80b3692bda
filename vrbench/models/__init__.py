"""One architecture per file, built as `model(input_shape, output_dim)`."""
