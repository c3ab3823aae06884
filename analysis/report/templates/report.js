"use strict";
// Draws the page's charts as SVG from the JSON in #data, and makes the table of runs sortable.
// A chart is redrawn when its width changes, so that text keeps its size on a phone.
const DATA = JSON.parse(document.getElementById("data").textContent);
const SVG = "http://www.w3.org/2000/svg";
const REACH = 28; // pixels from a mark at which a pointer or a finger means it

function make(name, attributes, parent, text) {
  const svg = ["svg", "g", "path", "line", "rect", "text", "title"].includes(name);
  const node = svg ? document.createElementNS(SVG, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  if (parent) parent.append(node);
  return node;
}

// Numbers as the tables write them: 2e18, 42M, 0.497.
function trim(value, digits) {
  return String(Number(value.toPrecision(digits)));
}
function count(value) {
  for (const [size, suffix] of [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "K"]])
    if (value >= size) return trim(value / size, 3) + suffix;
  return trim(value, 3);
}
function compute(value) {
  const [mantissa, power] = value.toExponential(3).split("e");
  return Number(mantissa) + "e" + Number(power);
}
const FORMS = { count, compute, percent: (v) => trim(100 * v, 3) + "%", fixed: (v) => trim(v, 6) };

function logTicks(low, high, most) {
  const plans = [[1, 1.5, 2, 3, 5, 7], [1, 2, 5], [1, 3], [1]];
  const from = Math.floor(Math.log10(low)), to = Math.ceil(Math.log10(high));
  for (let stride = 1; stride < 30; stride++)
    for (const digits of stride === 1 ? plans : [[1]]) {
      const ticks = [];
      for (let p = from; p <= to; p++)
        if (p % stride === 0) for (const d of digits) ticks.push(d * 10 ** p);
      const inside = ticks.filter((t) => t >= low && t <= high);
      if (inside.length > 0 && inside.length <= most) return inside;
    }
  return [low, high];
}
function linearTicks(low, high, most) {
  const rough = (high - low) / most, unit = 10 ** Math.floor(Math.log10(rough));
  const step = unit * [1, 2, 5, 10].find((m) => m * unit >= rough * 0.999);
  const ticks = [];
  for (let n = Math.ceil(low / step - 1e-9); n <= high / step + 1e-9; n++) ticks.push(Number((n * step).toPrecision(12)));
  return ticks;
}

// The range that a panel's items cover, with a margin.
function range(axis, items, which) {
  if (axis.range) return axis.range;
  const values = [];
  for (const item of items) {
    if (item.points) for (const p of item.points) values.push(p[which === "x" ? 0 : 1]);
    if (which === "x" && "from" in item) values.push(item.from, item.to);
    if (item[which] !== undefined) values.push(item[which]);
  }
  let low = Math.min(...values), high = Math.max(...values);
  if (axis.zero) return [0, high * 1.08];
  if (axis.clip) [low, high] = [Math.max(low, axis.clip[0]), Math.min(high, axis.clip[1])];
  if (axis.log) {
    const beyond = Math.max(high / low, 1.5) ** 0.08;
    return [low / beyond, high * beyond];
  }
  const beyond = (high - low || Math.abs(high) || 1) * 0.08;
  return [low - beyond, high + beyond];
}
function scale(axis, ends, from, to) {
  const map = axis.log ? Math.log10 : (v) => v;
  const [low, high] = ends.map(map);
  return (value) => from + ((map(value) - low) / (high - low)) * (to - from);
}

const R = 4.5;
const SHAPES = {
  circle: (r) => `M${-r},0a${r},${r} 0 1,0 ${2 * r},0a${r},${r} 0 1,0 ${-2 * r},0`,
  square: (r) => `M${-r * 0.9},${-r * 0.9}h${1.8 * r}v${1.8 * r}h${-1.8 * r}z`,
  triangle: (r) => `M0,${-1.15 * r}L${1.1 * r},${0.85 * r}H${-1.1 * r}z`,
  diamond: (r) => `M0,${-1.25 * r}L${1.1 * r},0L0,${1.25 * r}L${-1.1 * r},0z`,
  cross: (r) => { const a = r / 2.6; return `M${-a},${-r}h${2 * a}v${r - a}h${r - a}v${2 * a}h${a - r}v${r - a}h${-2 * a}v${a - r}h${a - r}v${-2 * a}h${r - a}z`; },
  star: (r) => "M" + Array.from({ length: 10 }, (_, i) => {
    const size = i % 2 ? r * 0.45 : r, turn = (Math.PI * i) / 5;
    return `${(size * Math.sin(turn)).toFixed(2)},${(-size * Math.cos(turn)).toFixed(2)}`;
  }).join("L") + "z",
};

class Chart {
  constructor(box) {
    this.box = box;
    this.spec = DATA.charts[box.dataset.chart];
    this.view = 0;
    this.off = new Set();
    this.controls = make("div", { class: "controls" }, box);
    this.panels = make("div", { class: "panels" }, box);
    this.tip = make("div", { class: "tip", role: "status", hidden: "" }, box);
    box.addEventListener("pointerleave", () => this.hide());
    box.addEventListener("keydown", (event) => this.key(event));
    this.legend();
    new ResizeObserver(() => this.resize()).observe(box);
    this.resize();
  }

  resize() {
    const width = Math.floor(this.box.clientWidth);
    if (width && width !== this.width) { this.width = width; this.draw(); }
  }

  legend() {
    this.controls.replaceChildren();
    const views = this.spec.views;
    if (views.length > 1) {
      const group = make("div", { class: "views", role: "group", "aria-label": "Arrange" }, this.controls);
      views.forEach((view, number) => {
        const button = make("button", { type: "button", "aria-pressed": number === this.view }, group, view.name);
        button.onclick = () => { this.view = number; this.legend(); this.draw(); this.controls.querySelectorAll(".views button")[number].focus(); };
      });
    }
    for (const entry of [...views[this.view].legend, ...views[this.view].other]) {
      const coloured = views[this.view].legend.includes(entry);
      const button = make("button", { type: "button", "aria-pressed": !this.off.has(entry.key), "data-toggle": entry.key }, this.controls);
      if (coloured) {
        const icon = make("svg", { width: 14, height: 14, viewBox: "-7 -7 14 14", "aria-hidden": "true" }, button);
        make("path", { d: SHAPES[entry.shape](R), class: `mark s${entry.series}` }, icon);
      }
      button.append(entry.label);
      button.onclick = () => {
        if (!this.off.delete(entry.key)) this.off.add(entry.key);
        button.setAttribute("aria-pressed", !this.off.has(entry.key));
        this.draw();
      };
    }
  }

  shown(item) { return !item.keys.some((key) => this.off.has(key)); }

  draw() {
    this.hide();
    this.panels.replaceChildren();
    this.marks = [];
    const spec = this.spec, view = spec.views[this.view];
    const panels = view.panels.map((p) => ({ ...p, items: p.items.filter((i) => this.shown(i)) })).filter((p) => p.items.length);
    if (!panels.length) { make("p", { class: "quiet" }, this.panels, this.spec.empty || "Everything is switched off."); return; }
    const columns = Math.min(panels.length, Math.max(1, Math.floor(this.width / 280)), 3);
    this.panels.style.gridTemplateColumns = `repeat(${columns}, minmax(0, 1fr))`;
    const width = Math.floor((this.width - 16 * (columns - 1)) / columns);
    const all = panels.flatMap((panel) => panel.items);
    for (const panel of panels) this.panel(panel, all, width);
    this.marks.forEach((mark, number) => mark.node.setAttribute("tabindex", number ? -1 : 0));
  }

  panel(panel, all, width) {
    const { x, y } = this.spec;
    const height = panel.short ? Math.min(240, width * 0.6) : Math.max(190, Math.min(300, width * 0.72));
    const ends = { x: range(x, all, "x"), y: range(y, panel.items, "y") };
    const longest = Math.max(...this.ticks(y, ends.y, 5).map((tick) => tick.text.length));
    const box = { left: (y.label ? 22 : 4) + 6.5 * longest, right: width - 10, top: 24, bottom: height - 38 };
    const svg = make("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": panel.title }, this.panels);
    make("text", { x: 0, y: 13, class: "title" }, svg, panel.title);
    const sx = scale(x, ends.x, box.left, box.right);
    const sy = y.down ? scale(y, ends.y, box.top, box.bottom) : scale(y, ends.y, box.bottom, box.top);
    this.axes(svg, box, x, y, ends, sx, sy);
    const clip = (v) => Math.max(box.left, Math.min(box.right, v));
    const order = { line: 0, span: 1, bar: 2, mark: 3, star: 4 };
    for (const item of [...panel.items].sort((a, b) => order[a.kind] - order[b.kind])) {
      const colour = `s${item.series}`;
      if (item.kind === "line") {
        const d = "M" + item.points.map(([a, b]) => `${sx(a).toFixed(1)},${sy(b).toFixed(1)}`).join("L");
        make("path", { d, class: `line ${colour}${item.dash ? " dash" : ""}` }, svg);
      } else if (item.kind === "span") {
        make("line", { x1: clip(sx(item.from)), x2: clip(sx(item.to)), y1: sy(item.y), y2: sy(item.y), class: `span ${colour}` }, svg);
      } else this.mark(svg, item, colour, clip, sx, sy, box);
    }
    // A finger is wider than a mark: the nearest one within reach is meant.
    const nearest = (event) => {
      const at = svg.getBoundingClientRect(), px = event.clientX - at.left, py = event.clientY - at.top;
      let best = null, distance = REACH;
      for (const mark of this.marks)
        if (mark.svg === svg) {
          const far = mark.bar && px >= mark.bar[0] && px <= mark.bar[1] && py <= box.bottom ? Math.abs(py - mark.y) / 20 : Math.hypot(px - mark.x, py - mark.y) + mark.behind;
          if (far < distance) { best = mark; distance = far; }
        }
      return best;
    };
    svg.addEventListener("pointermove", (event) => this.show(nearest(event)));
    svg.addEventListener("click", (event) => this.show(nearest(event)));
  }

  ticks(axis, [low, high], most) {
    const at = axis.ticks ? [] : (axis.log ? logTicks : linearTicks)(low, high, most);
    return axis.ticks || at.map((value) => ({ at: value, text: FORMS[axis.form](value) }));
  }

  axes(svg, box, x, y, ends, sx, sy) {
    const most = Math.max(2, Math.floor((box.right - box.left) / 52));
    for (const tick of this.ticks(x, ends.x, most)) {
      make("line", { x1: sx(tick.at), x2: sx(tick.at), y1: box.top, y2: box.bottom, class: "grid" }, svg);
      make("text", { x: sx(tick.at), y: box.bottom + 14, "text-anchor": "middle" }, svg, tick.text);
    }
    for (const tick of this.ticks(y, ends.y, 5)) {
      make("line", { x1: box.left, x2: box.right, y1: sy(tick.at), y2: sy(tick.at), class: "grid" }, svg);
      make("text", { x: box.left - 5, y: sy(tick.at) + 4, "text-anchor": "end" }, svg, tick.text);
    }
    make("line", { x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom, class: "axis" }, svg);
    make("text", { x: (box.left + box.right) / 2, y: box.bottom + 31, "text-anchor": "middle" }, svg, x.label);
    if (y.label) {
      const middle = (box.top + box.bottom) / 2;
      make("text", { x: 9, y: middle, "text-anchor": "middle", transform: `rotate(-90 9 ${middle})` }, svg, y.label);
    }
  }

  mark(svg, item, colour, clip, sx, sy, box) {
    const tip = item.run !== undefined ? DATA.runs[item.run] : { text: item.text };
    const node = make("g", { class: "item", role: "img", "aria-label": tip.text.join(", ") }, svg);
    // A star often covers the run beside it: of two that are close, the run is meant.
    const entry = { svg, node, tip, behind: item.kind === "star" ? 5 : 0 };
    if (item.kind === "bar") {
      entry.bar = [clip(sx(item.from)), clip(sx(item.to))];
      entry.x = (entry.bar[0] + entry.bar[1]) / 2;
      entry.y = sy(item.y);
      make("rect", { x: entry.bar[0], y: entry.y, width: Math.max(0.5, entry.bar[1] - entry.bar[0]), height: Math.max(0, box.bottom - entry.y), class: `bar ${colour}` }, node);
    } else {
      entry.x = clip(sx(item.x));
      entry.y = sy(item.y);
      const star = item.kind === "star", shape = star ? (item.hollow ? SHAPES.circle(8) : SHAPES.star(8)) : SHAPES[item.shape](R);
      const beyond = entry.x !== sx(item.x); // of the panel: drawn at its end, hollow
      const kind = (star ? "star" : "mark") + (item.hollow || beyond ? " hollow" : "");
      make("path", { d: shape, transform: `translate(${entry.x.toFixed(1)},${entry.y.toFixed(1)})`, class: `${kind} ${colour}` }, node);
    }
    node.addEventListener("focus", () => this.show(entry));
    node.addEventListener("blur", () => this.hide());
    this.marks.push(entry);
  }

  show(mark) {
    if (mark === this.current) return;
    this.hide();
    if (!mark) return;
    this.current = mark;
    mark.node.classList.add("on");
    const [first, ...rest] = mark.tip.text;
    this.tip.replaceChildren();
    make("b", {}, this.tip, first);
    for (const line of rest) make("div", {}, this.tip, line);
    this.tip.hidden = false;
    const outer = this.box.getBoundingClientRect(), inner = mark.svg.getBoundingClientRect();
    const x = inner.left - outer.left + mark.x, y = inner.top - outer.top + mark.y;
    const left = Math.max(0, Math.min(x + 12, this.box.clientWidth - this.tip.offsetWidth));
    const above = y - this.tip.offsetHeight - 14;
    this.tip.style.left = `${left}px`;
    this.tip.style.top = `${above >= 0 ? above : y + 14}px`;
  }

  hide() {
    this.tip.hidden = true;
    if (this.current) this.current.node.classList.remove("on");
    this.current = null;
  }

  // One stop of the Tab key for each chart; arrows step through its marks, Enter opens the run.
  key(event) {
    const here = this.marks.findIndex((mark) => mark.node === document.activeElement);
    if (here < 0) return;
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (step) {
      event.preventDefault();
      const next = this.marks[(here + step + this.marks.length) % this.marks.length];
      this.marks[here].node.setAttribute("tabindex", -1);
      next.node.setAttribute("tabindex", 0);
      next.node.focus();
    } else if (event.key === "Enter" && this.marks[here].tip.href) location.href = this.marks[here].tip.href;
    else if (event.key === "Escape") this.hide();
  }
}

// A table of many rows holds the first ones; the others are data, made when they are shown.
function sortable(table) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  const rows = [...body.rows].map((row) => ({ row, cells: [...row.cells].map((c) => [c.textContent, c.dataset.value ?? c.textContent]) }));
  const size = rows.length, model = body.rows[0];
  for (const { href, cells } of DATA.more?.[table.id] ?? [])
    rows.push({ href, cells: cells.map((cell) => (Array.isArray(cell) ? cell : [cell, cell])) });
  let listed = rows, page = 0;

  const made = (entry) => {
    const row = model.cloneNode(true);
    entry.cells.forEach(([text, value], i) => {
      row.cells[i].textContent = text;
      if (value === text) delete row.cells[i].dataset.value;
      else row.cells[i].dataset.value = value;
    });
    if (entry.href) {
      row.cells[0].replaceChildren();
      make("a", { href: entry.href }, row.cells[0], entry.cells[0][0]);
    }
    return row;
  };
  const draw = () => {
    const part = rows.length > size ? listed.slice(page * size, (page + 1) * size) : listed;
    body.replaceChildren(...part.map((entry) => (entry.row ??= made(entry))));
  };

  heads.forEach((head, column) => {
    head.querySelector("button").onclick = () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const compare = (a, b) => {
        const [left, right] = [a.cells[column][1], b.cells[column][1]];
        const numbers = left !== "" && right !== "" && !isNaN(left) && !isNaN(right);
        return (numbers ? left - right : String(left).localeCompare(String(right))) * (down ? -1 : 1);
      };
      rows.sort(compare);
      listed = [...listed].sort(compare);
      page = 0;
      draw();
      if (pages) pages();
    };
  });
  const pages = rows.length > size ? paged() : null;

  function paged() {
    const bar = make("p", { class: "pages" });
    table.parentElement.before(bar);
    const label = make("label", {}, bar, "Filter ");
    const filter = make("input", { type: "search", size: 18 }, label);
    const back = make("button", { type: "button" }, bar, "Previous");
    const next = make("button", { type: "button" }, bar, "Next");
    const where = make("span", { role: "status" }, bar);
    const show = () => {
      const end = Math.min((page + 1) * size, listed.length);
      where.textContent = ` ${listed.length ? page * size + 1 : 0} to ${end} of ${listed.length}`;
      back.disabled = page === 0;
      next.disabled = end >= listed.length;
    };
    const go = (to) => { page = to; draw(); show(); };
    back.onclick = () => go(page - 1);
    next.onclick = () => go(page + 1);
    filter.oninput = () => {
      const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
      const said = (entry) => entry.cells.map(([text]) => text).join(" ").toLowerCase();
      listed = rows.filter((entry) => words.every((word) => said(entry).includes(word)));
      go(0);
    };
    show();
    return show;
  }
}

const CHARTS = [...document.querySelectorAll("[data-chart]")].map((box) => new Chart(box));
document.querySelectorAll("table.sortable").forEach(sortable);

// A table that is wider than the page scrolls in its box: say so, and shade the edge that hides more.
for (const box of document.querySelectorAll(".wide")) {
  const hint = make("p", { class: "quiet beyond" }, null, "Scroll the table sideways: it has more columns.");
  box.before(hint);
  const look = () => {
    const beyond = box.scrollWidth - box.clientWidth;
    hint.hidden = beyond <= 1;
    box.classList.toggle("more", beyond - box.scrollLeft > 1);
  };
  const observer = new ResizeObserver(look);
  for (const part of [box, ...box.children]) observer.observe(part);
  box.onscroll = look;
}

// The legend's colours beside the models' names.
for (const entry of DATA.charts.isoflop.views[0].legend)
  for (const swatch of document.querySelectorAll(".swatch"))
    if (swatch.dataset.key === entry.key) swatch.classList.add(`s${entry.series}`);

const chosen = document.getElementById("routing-run");
function choose() {
  document.querySelectorAll("[data-routed]").forEach((box) => { box.hidden = box.dataset.routed !== chosen.value; });
}
if (chosen) { chosen.onchange = choose; choose(); }

// Paper has no pointer: everything opens, and charts take the width of the page.
addEventListener("beforeprint", () => {
  document.querySelectorAll("details").forEach((d) => { d.open = true; });
  CHARTS.forEach((chart) => { chart.width = Math.min(chart.box.clientWidth || 680, 680); if (chart.box.clientWidth) chart.draw(); });
});
addEventListener("afterprint", () => CHARTS.forEach((chart) => { chart.width = 0; chart.resize(); }));
