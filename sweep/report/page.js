// Paper is narrower than a screen, and shows nothing that has to be opened or scrolled.
const PAPER = 680;
const fit = (layout) => {
  document.querySelectorAll(".plotly-graph-div").forEach((chart) => Plotly.relayout(chart, layout));
};
let closed = [];
addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("details:not([open])")];
  closed.forEach((part) => { part.open = true; });
  fit({ width: PAPER, autosize: false });
});
addEventListener("afterprint", () => {
  closed.forEach((part) => { part.open = false; });
  fit({ width: null, autosize: true });
});
