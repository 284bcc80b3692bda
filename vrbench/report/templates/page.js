"use strict";
// Hover, touch or a slider's arrow keys read every line of a chart at one step.
for (const chart of document.querySelectorAll("figure.chart")) {
  const data = JSON.parse(chart.querySelector("script").textContent);
  const [svg, slider] = [chart.querySelector("svg"), chart.querySelector("input")];
  const [cursor, output] = [chart.querySelector(".cursor"), chart.querySelector("output")];
  const cells = chart.querySelectorAll("td.value");
  const names = [...chart.querySelectorAll("tbody th")].map((name) => name.textContent);
  const { left, right } = data;

  const short = (value) => (value === null ? "–" : String(Number(value.toPrecision(4))));

  function nearest(steps, step) {
    let [first, last] = [0, steps.length - 1];
    while (last - first > 1) {
      const middle = (first + last) >> 1;
      if (steps[middle] <= step) first = middle;
      else last = middle;
    }
    return Math.abs(steps[last] - step) < Math.abs(steps[first] - step) ? last : first;
  }

  function read(line, step) {
    if (step < line.steps[0] || step > line.steps[line.steps.length - 1]) return "–";
    const place = nearest(line.steps, step);
    const mean = short(line.mean[place]);
    return line.low[place] === null ? mean : `${mean} [${short(line.low[place])}, ${short(line.high[place])}]`;
  }

  function show(place) {
    const step = data.steps[place];
    const x = left + ((step - data.from) / (data.to - data.from)) * (right - left);
    cursor.setAttribute("transform", `translate(${x.toFixed(1)})`);
    chart.classList.add("read");
    output.textContent = short(step);
    const readings = data.lines.map((line) => read(line, step));
    readings.forEach((reading, number) => { cells[number].textContent = reading; });
    slider.value = place;
    slider.setAttribute("aria-valuetext", `${data.unit} ${short(step)}: ${names.map((name, n) => `${name} ${readings[n]}`).join("; ")}`);
  }

  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
    show(nearest(data.steps, data.from + ((x - left) / (right - left)) * (data.to - data.from)));
  });
  slider.addEventListener("input", () => show(Number(slider.value)));
  slider.hidden = data.steps.length < 2;
}
