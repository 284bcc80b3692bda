"""unet2d: diffusers' UNet2DModel behind the call that the diffusion task makes."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from vrbench.models.unet_blocks import check_image_shape, check_levels


class DiffusersUNet(nn.Module):
    """`diffusers.UNet2DModel` with its timestep embedding; diffusers is imported when one is built (several seconds).

    Args:
        input_shape: (C, H, W); sides divisible by 2 ** (levels - 1).
        output_dim: C.
        channels: channels of each level, from full size down.
        layers_per_block: residual blocks of each level.
        groups: groups of every GroupNorm.
        attention: self-attention at the lowest level (8 channels a head, as diffusers has it).
        dropout: in the residual blocks.

    forward(x (B, C, H, W), t int64 (B,)) gives (B, C, H, W). Raises ValueError for sizes it cannot halve, or where
    diffusers is not installed.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        output_dim: int,
        *,
        channels: list[int],
        layers_per_block: int,
        groups: int,
        attention: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        check_image_shape(input_shape, output_dim, "unet2d")
        check_levels("channels", channels, channels, groups)
        _, height, width = input_shape
        factor = 2 ** (len(channels) - 1)
        if height % factor or width % factor:
            raise ValueError(
                f"channels={channels}: {len(channels)} levels halve the image {len(channels) - 1} times, and "
                f"{height}x{width} is not divisible by {factor}; take fewer levels, or model=unet_tiny or paper_unet, "
                "which take any size"
            )
        from diffusers import UNet2DModel

        lower = len(channels) - 1
        self.unet: Any = UNet2DModel(
            in_channels=input_shape[0],
            out_channels=output_dim,
            block_out_channels=tuple(channels),
            layers_per_block=layers_per_block,
            down_block_types=("DownBlock2D",) * lower + ("AttnDownBlock2D" if attention else "DownBlock2D",),
            up_block_types=("AttnUpBlock2D" if attention else "UpBlock2D",) + ("UpBlock2D",) * lower,
            add_attention=attention,
            norm_num_groups=groups,
            dropout=dropout,
        )

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.unet(x, t, return_dict=False)[0]
