"use strict";
// Groups are switched on and off by the boxes on top; the choice is kept in the address, so that a page that is loaded
// again still has it. Numbers are shown beside the mouse, and only ever written as text.
const data = JSON.parse(document.getElementById("data").textContent);
const style = document.head.appendChild(document.createElement("style"));
const boxes = [...document.querySelectorAll("#groups input[data-group]")];
const hidden = () => boxes.filter(box => !box.checked).map(box => Number(box.dataset.group));

function apply() {
  style.textContent = hidden().map(group => `.g${group} { display: none; }`).join("\n");
  history.replaceState(null, "", hidden().length ? `#without=${hidden().join(",")}` : location.pathname);
}
const without = (location.hash.match(/^#without=([\d,]+)$/) || ["", ""])[1].split(",").filter(Boolean).map(Number);
boxes.forEach(box => { box.checked = !without.includes(Number(box.dataset.group)); box.addEventListener("change", apply); });
document.getElementById("all").addEventListener("change", event => {
  boxes.forEach(box => { box.checked = event.target.checked; });
  apply();
});
if (without.length) apply();

const short = value => Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(4)));

function nearest(xs, x) {
  let best = 0;
  xs.forEach((value, i) => { if (Math.abs(value - x) < Math.abs(xs[best] - x)) best = i; });
  return best;
}

function show(picture, axes, event) {
  const cursor = picture.querySelector(".cursor"), numbers = picture.querySelector(".numbers");
  const frame = picture.querySelector("svg").getBoundingClientRect();
  const u = (event.clientX - frame.left) / frame.width, v = (event.clientY - frame.top) / frame.height;
  const at = axes.find(a => u >= a.box[0] && u <= a.box[2] && v >= a.box[1] && v <= a.box[3]);
  cursor.style.display = numbers.style.display = "none";
  if (!at) return;
  const x = at.x[0] + (u - at.box[0]) / (at.box[2] - at.box[0]) * (at.x[1] - at.x[0]);
  const lines = at.lines.filter(line => !hidden().includes(line.group) && x <= line.x[line.x.length - 1] + 0.02 * (at.x[1] - at.x[0]));
  if (!lines.length) return;
  numbers.replaceChildren(...[[null, `${at.label}: ${short(x)}`], ...lines.map(line => {
    const i = nearest(line.x, x);
    const band = line.low ? ` [${short(line.low[i])}, ${short(line.high[i])}]` : "";
    const runs = line.runs === 1 ? " (one seed)" : "";
    return [line.group, `${short(line.centre[i])}${band}${runs}  ${data.groups[line.group].name}`, line.centre[i]];
  }).sort((a, b) => b[2] - a[2])].slice(0, 16).map(([group, text]) => {
    const row = document.createElement("div");
    if (group !== null) {
      const chip = row.appendChild(document.createElement("span"));
      chip.className = "chip";
      chip.style.background = data.groups[group].color;
    }
    row.append(text);
    return row;
  }));
  cursor.style.display = numbers.style.display = "block";
  cursor.style.left = `${u * frame.width}px`;
  cursor.style.top = `${at.box[1] * frame.height}px`;
  cursor.style.height = `${(at.box[3] - at.box[1]) * frame.height}px`;
  numbers.style.top = `${(at.box[1] * frame.height) + 6}px`;
  const right = u > 0.5 ? frame.width * (1 - u) + 12 : null;
  numbers.style.right = right === null ? "" : `${right}px`;
  numbers.style.left = right === null ? `${u * frame.width + 12}px` : "";
}

document.querySelectorAll(".picture").forEach(picture => {
  const axes = data.pictures[picture.dataset.name] || [];
  picture.addEventListener("mousemove", event => show(picture, axes, event));
  picture.addEventListener("mouseleave", () => {
    picture.querySelectorAll(".cursor, .numbers").forEach(part => { part.style.display = "none"; });
  });
});
if (data.reload) setTimeout(() => location.reload(), 1000 * data.reload);
