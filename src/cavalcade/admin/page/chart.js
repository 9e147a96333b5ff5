// A line chart in SVG: values over the last minutes, for the eye, for the pointer and for the keyboard.

const SVG = "http://www.w3.org/2000/svg";
const SPAN_S = 300, FIRST_SPAN_S = 60; // it grows as there is more to show
const GAP_S = 3.5; // longer without a value is a hole, not a line
const LEFT = 46, RIGHT = 8, TOP = 8, BOTTOM = 20, HEIGHT = 150;
const HUES = 8;

function shape(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// The least of 1, 2, 2.5, 5 times a power of ten that is not below the value.
function ceiling(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 2.5, 5, 10].map((step) => step * power).find((step) => step >= value * 0.999999);
}

function style(place) {
  return `s${place % HUES} dash${Math.floor(place / HUES) % 4}`;
}

export class Chart {
  // `format` writes a value, `least` is the smallest top of the scale.
  constructor(parent, title, format, least) {
    this.title = title;
    this.format = format;
    this.least = least;
    this.points = []; // { at, values: Map of name to number }
    this.names = []; // the place is the colour
    this.span = FIRST_SPAN_S; // seconds that are shown
    this.picked = null; // the time under the pointer or the keyboard
    this.figure = document.createElement("figure");
    const head = document.createElement("h3");
    head.textContent = title;
    this.svg = shape("svg", { role: "img", tabindex: "0", "aria-label": title });
    this.caption = document.createElement("figcaption");
    this.figure.append(head, this.svg, this.caption);
    parent.append(this.figure);
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", () => this.pick(null));
    this.svg.addEventListener("blur", () => this.pick(null));
    this.svg.addEventListener("keydown", (event) => this.step(event));
    new ResizeObserver(() => this.draw()).observe(this.svg);
  }

  push(at, values) {
    for (const name of values.keys()) if (!this.names.includes(name)) this.names.push(name);
    this.points.push({ at, values });
    while (this.points.length && this.points[0].at < at - SPAN_S) this.points.shift();
    this.names = this.names.filter((name) => this.points.some((each) => each.values.has(name)));
    this.draw();
  }

  draw() {
    const width = this.svg.clientWidth;
    if (!width || document.hidden) return;
    this.svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    const last = this.points.at(-1);
    const now = last ? last.at : 0;
    this.span = Math.min(SPAN_S, Math.max(FIRST_SPAN_S, now - (last ? this.points[0].at : 0)));
    const highest = Math.max(this.least, ...this.points.flatMap((each) => [...each.values.values()]));
    const top = ceiling(highest);
    const x = (at) => LEFT + (1 - (now - at) / this.span) * (width - LEFT - RIGHT);
    const y = (value) => HEIGHT - BOTTOM - (value / top) * (HEIGHT - TOP - BOTTOM);
    const drawn = [];
    for (const part of [0, 0.5, 1]) {
      drawn.push(shape("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(top * part), y2: y(top * part) }));
      drawn.push(shape("text", { class: "tick", x: LEFT - 6, y: y(top * part) + 4, "text-anchor": "end" }, this.format(top * part)));
    }
    for (const [share, anchor] of [[1, "start"], [0.5, "middle"], [0, "end"]]) {
      const ago = share ? `${Math.round(this.span * share)} s ago` : "now";
      drawn.push(shape("text", { class: "tick", x: x(now - this.span * share), y: HEIGHT - 5, "text-anchor": anchor }, ago));
    }
    this.names.forEach((name, place) => drawn.push(shape("path", { class: `line ${style(place)}`, d: this.path(name, x, y) })));
    const shown = this.picked === null ? last : this.near(this.picked);
    if (this.picked !== null && shown) {
      drawn.push(shape("line", { class: "cross", x1: x(shown.at), x2: x(shown.at), y1: TOP, y2: HEIGHT - BOTTOM }));
    }
    this.svg.replaceChildren(...drawn);
    this.label(shown, now);
  }

  path(name, x, y) {
    let d = "";
    let before = -Infinity;
    for (const { at, values } of this.points) {
      if (!values.has(name)) continue;
      const begins = at - before > GAP_S;
      d += `${begins ? "M" : "L"}${x(at).toFixed(1)} ${y(values.get(name)).toFixed(1)}`;
      if (begins) d += "h0.01"; // a single value is a dot
      before = at;
    }
    return d;
  }

  // The legend has the values; the label says the same to who does not see it.
  label(shown, now) {
    const keys = [];
    const words = [];
    this.names.forEach((name, place) => {
      const value = shown && shown.values.has(name) ? this.format(shown.values.get(name)) : "–";
      const key = document.createElement("span");
      key.className = "key";
      const mark = shape("svg", { viewBox: "0 0 16 8", "aria-hidden": "true" });
      mark.append(shape("line", { class: `line ${style(place)}`, x1: 1, x2: 15, y1: 4, y2: 4 }));
      const text = document.createElement("span");
      text.textContent = `${name} ${value}`;
      key.append(mark, text);
      keys.push(key);
      words.push(`${name} ${value}`);
    });
    if (this.picked !== null && shown) {
      const when = document.createElement("span");
      when.className = "at";
      when.textContent = `${Math.round(now - shown.at)} s ago`;
      keys.push(when);
      words.push(when.textContent);
    }
    this.caption.replaceChildren(...keys);
    this.svg.setAttribute("aria-label", `${this.title}: ${words.join(", ") || "nothing yet"}`);
  }

  near(at) {
    return this.points.reduce((best, each) => (!best || Math.abs(each.at - at) < Math.abs(best.at - at) ? each : best), null);
  }

  pick(at) {
    this.picked = at;
    this.draw();
  }

  point(event) {
    const box = this.svg.getBoundingClientRect();
    const share = (event.clientX - box.left - LEFT) / (box.width - LEFT - RIGHT);
    if (this.points.length) this.pick(this.points.at(-1).at - (1 - share) * this.span);
  }

  step(event) {
    const shown = this.points.length && this.near(this.picked ?? this.points.at(-1).at);
    const place = this.points.indexOf(shown);
    const ends = { Home: 0, End: this.points.length - 1, ArrowLeft: place - 1, ArrowRight: place + 1 };
    if (event.key === "Escape") this.pick(null);
    else if (shown && event.key in ends) {
      this.pick(this.points[Math.min(Math.max(0, ends[event.key]), this.points.length - 1)].at);
      event.preventDefault();
    }
  }
}
