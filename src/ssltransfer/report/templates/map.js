const data = JSON.parse(document.getElementById("data").textContent);
const canvas = document.getElementById("canvas"), tip = document.getElementById("tip"), legend = document.getElementById("legend");
const select = document.getElementById("coloring"), pen = canvas.getContext("2d"), SHOWN = 24;
const sheets = data.sheets.map((uri) => Object.assign(new Image(), { src: uri }));
let coloring = data.colorings[0], colors = new Map(), chosen = null, point = -1;

const name = (coloring, group) => group < 0 ? "no class" : coloring.names ? coloring.names[group] : "cluster " + group;

function recolor() {
  coloring = data.colorings[select ? select.value : 0];
  chosen = null;
  legend.replaceChildren();
  if (!coloring) return draw();
  const counts = new Map();
  for (const group of coloring.of) counts.set(group, (counts.get(group) || 0) + 1);
  const groups = [...counts.keys()].sort((a, b) => counts.get(b) - counts.get(a) || a - b);
  colors = new Map(groups.map((group, i) => [group, group < 0 ? "#999" : groups.length <= data.colors.length ? data.colors[i]
    : `hsl(${(i * 137.5) % 360} ${60 + 25 * (i % 2)}% ${42 + 14 * (i % 3)}%)`]));
  for (const group of groups.slice(0, SHOWN)) {
    const button = document.createElement("button"), dot = document.createElement("i");
    dot.style.background = colors.get(group);
    button.append(dot, `${name(coloring, group)} (${counts.get(group)})`);
    button.onclick = () => { chosen = chosen === group ? null : group; draw(); };
    legend.append(button);
  }
  if (groups.length > SHOWN) legend.append(` and ${groups.length - SHOWN} more`);
  draw();
}

const place = (i, side) => [12 + data.x[i] / 1000 * (side - 24), 12 + data.y[i] / 1000 * (side - 24)];

function draw() {
  const side = canvas.clientWidth, scale = devicePixelRatio || 1, radius = side < 500 ? 2.5 : 3.5;
  canvas.width = canvas.height = side * scale;
  pen.scale(scale, scale);
  const dot = (i, r) => { pen.beginPath(); pen.arc(...place(i, side), r, 0, 7); pen.fill(); };
  for (const front of chosen === null ? [true] : [false, true]) {
    pen.globalAlpha = front ? 0.85 : 0.15;
    data.x.forEach((_, i) => {
      if (chosen !== null && (coloring.of[i] === chosen) !== front) return;
      pen.fillStyle = coloring ? colors.get(coloring.of[i]) : data.colors[0];
      dot(i, radius);
    });
  }
  if (point >= 0) { pen.globalAlpha = 1; pen.fillStyle = getComputedStyle(canvas).color; dot(point, radius + 2); }
}

function find(event) {
  const box = canvas.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
  let nearest = -1, least = 24 * 24;
  data.x.forEach((_, i) => {
    const [px, py] = place(i, box.width), distance = (px - x) ** 2 + (py - y) ** 2;
    if (distance < least) { least = distance; nearest = i; }
  });
  return nearest;
}

function show(nearest) {
  if (nearest === point) return;
  point = nearest;
  draw();
  tip.hidden = point < 0;
  if (point < 0) return;
  const [image, text] = tip.children, cell = point % data.each, side = canvas.clientWidth, size = data.cell - 2;
  image.getContext("2d").drawImage(sheets[Math.floor(point / data.each)], (cell % data.columns) * data.cell,
    Math.floor(cell / data.columns) * data.cell, size, size, 0, 0, image.width, image.height);
  text.textContent = [data.paths[point], ...data.colorings.map((one) => (one.names ? "" : one.name + ": ") + name(one, one.of[point]))].join(" \u00b7 ");
  const [px, py] = place(point, side);
  tip.style.left = `${Math.max(0, Math.min(px + 14, side - tip.offsetWidth))}px`;
  tip.style.top = `${py + 14 + tip.offsetHeight > side ? Math.max(0, py - 14 - tip.offsetHeight) : py + 14}px`;
}

canvas.onpointermove = (event) => show(find(event));
canvas.onpointerleave = (event) => { if (event.pointerType === "mouse") show(-1); };
canvas.onclick = (event) => {
  show(find(event));
  chosen = point < 0 || !coloring || coloring.of[point] === chosen ? null : coloring.of[point];
  draw();
};
if (select) select.onchange = recolor;
addEventListener("resize", draw);
recolor();
