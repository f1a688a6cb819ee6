"""The style and the script of a circuit's page (html.py): they draw what the page's data says.

Every text of a run enters the document as text (`textContent`), never as markup.
"""

from __future__ import annotations

STYLE = """
.sliders{display:flex;flex-wrap:wrap;gap:.4rem 2rem;margin:.6rem 0}
.sliders label{display:flex;gap:.5rem;align-items:center}
.sides{display:flex;flex-wrap:wrap;gap:1rem;align-items:flex-start}
.picture{flex:3 1 22rem;min-width:0;overflow-x:auto}
.picture svg{display:block;width:100%;min-width:34rem;font-size:11px}
.picture text{fill:currentColor}.picture line{stroke:var(--field)}
.sides .card{flex:1 1 18rem;min-width:0;border:1px solid var(--line);border-radius:6px;
padding:.7rem 1rem}
.card table{width:100%}
.card button{font:inherit;color:var(--link);background:none;border:0;padding:0;text-align:left;
cursor:pointer}
.token{font:13px ui-monospace,monospace;background:var(--field);border-radius:3px;padding:0 .25rem;
margin:0 .3rem .2rem 0;display:inline-block;overflow-wrap:anywhere}
.hover{position:fixed;pointer-events:none;background:var(--ground);border:1px solid var(--line);
border-radius:4px;padding:.2rem .5rem;font-size:12px;max-width:20rem;overflow-wrap:anywhere}
.node{cursor:pointer;stroke:var(--ground)}
.node:focus,.node.chosen{stroke:var(--ink);stroke-width:2;outline:none}
.plus{fill:var(--blue)}.minus{fill:var(--orange)}
.node.remainder{fill:var(--ground);stroke:var(--ink)}
.edge{fill:none;opacity:.4;pointer-events:none}
.edge.plus{stroke:var(--blue)}.edge.minus{stroke:var(--orange)}
.dim .edge:not(.own){opacity:.08}.edge.own{opacity:.9}
"""

SCRIPT = """
'use strict';
const data = JSON.parse(document.getElementById('data').textContent);
const SLOT = 26, ROW = 26, LEFT = 60, TOP = 10, BOTTOM = 40;
const svg = document.querySelector('svg'), hover = document.querySelector('.hover');
let chosen = null;
const number = x => (x < 0 ? '\\u2212' : '+') + Math.abs(x).toPrecision(4);
const X = x => LEFT + x * SLOT, Y = y => TOP + (data.height - y) * ROW;

function make(parent, name, attributes = {}, text = null) {
  const space = parent.namespaceURI.endsWith('svg') ? parent.namespaceURI : null;
  const made = space ? document.createElementNS(space, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== null) made.textContent = text;
  return parent.appendChild(made);
}

const square = r => `M${-r},${-r}H${r}V${r}H${-r}Z`;
const SHAPES = {
  head: square, attention: square,
  embedding: r => `M0,${-1.3 * r}L${1.3 * r},0L0,${1.3 * r}L${-1.3 * r},0Z`,
  bias: r => `M0,${-1.2 * r}L${1.2 * r},${r}H${-1.2 * r}Z`,
  target: r => `M0,${-1.2 * r}L${1.2 * r},${-0.2 * r}L${0.7 * r},${r}H${-0.7 * r}L${-1.2 * r},
    ${-0.2 * r}Z`,
  group: r => star(r * 1.5),
  error: r => `M${-r},${-r}L${r},${r}L${0.6 * r},${r}L${-r},${-0.6 * r}ZM${r},${-r}L${-r},${r}
    L${-0.6 * r},${r}L${r},${-0.6 * r}Z`,
};
const star = r => 'M' + [...Array(10).keys()].map(i => {
  const [turn, at] = [Math.PI * (i / 5 - 0.5), i % 2 ? r / 2 : r];
  return `${at * Math.cos(turn)},${at * Math.sin(turn)}`;
}).join('L') + 'Z';
const round = r => `M${-r},0A${r},${r} 0 1 1 ${r},0A${r},${r} 0 1 1 ${-r},0Z`;

function picked() {
  const share = +nodes.value / 100, part = +edges.value / 100;
  const shown = new Set(data.nodes.keys());
  data.nodes.forEach((node, i) => { if (node.before >= share) shown.delete(i); });
  if (chosen !== null) shown.add(chosen);
  const drawn = data.edges.filter(([s, t]) =>
    shown.has(s) && shown.has(t) && data.nodes[s].kind !== 'remainder');
  const all = drawn.reduce((sum, edge) => sum + Math.abs(edge[2]), 0);
  let before = 0;
  const kept = drawn.filter(edge => {
    const keep = before < part * all || part >= 1;
    before += Math.abs(edge[2]);
    return keep || edge[0] === chosen || edge[1] === chosen;
  });
  return [shown, kept, drawn.length - kept.length];
}

function draw() {
  const [shown, kept, left] = picked();
  svg.replaceChildren();
  svg.classList.toggle('dim', chosen !== null);
  const width = LEFT + (data.width + 1) * SLOT, height = TOP + (data.height + 1) * ROW + BOTTOM;
  svg.setAttribute('viewBox', `0 0 ${width} ${height}`);
  for (const [name, y] of data.rows) {
    make(svg, 'line', {x1: LEFT, x2: width, y1: Y(y), y2: Y(y)});
    make(svg, 'text', {x: LEFT - 8, y: Y(y) + 4, 'text-anchor': 'end'}, name);
  }
  for (const [token, from, to, i] of data.columns) {
    const spot = {x: X((from + to) / 2), y: height - 8 - 14 * (i % 2), 'text-anchor': 'middle'};
    make(svg, 'text', spot, token);
  }
  const most = Math.max(...data.edges.map(edge => Math.abs(edge[2])), 1e-30);
  for (const [s, t, weight] of kept.slice().reverse()) {
    const [a, b] = [data.nodes[s], data.nodes[t]];
    const own = s === chosen || t === chosen ? ' own' : '';
    make(svg, 'path', {
      class: `edge ${weight < 0 ? 'minus' : 'plus'}${own}`,
      d: `M${X(a.x)},${Y(a.y)}L${X(b.x)},${Y(b.y)}`,
      'stroke-width': 0.5 + 4.5 * Math.sqrt(Math.abs(weight) / most),
    });
  }
  const parts = data.nodes.filter(node => node.kind !== 'target');
  const largest = Math.max(...parts.map(node => Math.abs(node.size)), 1e-30);
  for (const i of shown) {
    const node = data.nodes[i];
    const r = 3.5 + 7 * Math.min(1, Math.sqrt(Math.abs(node.size) / largest));
    const sign = node.size < 0 ? 'minus' : 'plus';
    const made = make(svg, 'path', {
      class: `node ${sign} ${node.kind}${i === chosen ? ' chosen' : ''}`,
      transform: `translate(${X(node.x)},${Y(node.y)})`, d: (SHAPES[node.kind] || round)(r),
      tabindex: 0, role: 'button', 'data-node': i,
      'aria-label': `${node.name} ${node.token} ${number(node.size)}`,
    });
    made.addEventListener('click', () => choose(i));
    made.addEventListener('keydown', event => { if (event.key === 'Enter') choose(i); });
    made.addEventListener('pointermove', event => say(node, event));
    made.addEventListener('pointerleave', () => { hover.hidden = true; });
  }
  const hidden = data.nodes.filter((_, i) => !shown.has(i));
  const sum = hidden.reduce((all, node) => all + node.size, 0);
  document.getElementById('hidden').textContent = hidden.length || left
    ? `Not shown: ${hidden.length} weaker nodes (${number(sum)} together), ${left} weaker edges.`
    : 'All nodes and edges of this file are shown.';
}

function say(node, event) {
  hover.hidden = false;
  hover.replaceChildren();
  make(hover, 'b', {}, `${node.name}  ${node.token}`);
  for (const [name, value] of Object.entries(node.numbers)) {
    make(hover, 'div', {}, `${name} ${number(value)}`);
  }
  if (node.top.length) make(hover, 'div', {}, `writes ${node.top.slice(0, 6).join(' ')}`);
  if (node.bottom.length) make(hover, 'div', {}, `against ${node.bottom.slice(0, 6).join(' ')}`);
  hover.style.left = `${Math.max(0, Math.min(event.clientX + 14, innerWidth - 330))}px`;
  hover.style.top = `${event.clientY + 14}px`;
}

function choose(i) {
  chosen = i === chosen ? null : i;
  hover.hidden = true;
  draw();
  card();
}

function card() {
  const box = document.querySelector('.card');
  box.replaceChildren();
  if (chosen === null) {
    make(box, 'p', {class: 'about'}, 'Click a node: its tokens and its edges show here.');
    return;
  }
  const node = data.nodes[chosen];
  make(box, 'h2', {}, node.name);
  make(box, 'p', {class: 'about'}, node.place);
  const table = make(box, 'table');
  for (const [name, value] of Object.entries(node.numbers)) row(table, name, number(value));
  for (const [name, list] of [['Writes', node.top], ['Against', node.bottom],
                              ['Members', node.members]]) {
    if (!list.length) continue;
    make(box, 'h3', {}, name);
    for (const token of list) make(box, 'span', {class: 'token'}, token);
  }
  for (const [name, here, there] of [['Edges in', 1, 0], ['Edges out', 0, 1]]) {
    const own = data.edges.filter(edge => edge[here] === chosen);
    if (!own.length) continue;
    make(box, 'h3', {}, `${name} (${own.length})`);
    const list = make(box, 'table');
    if (data.by === 'effect') row(list, '', 'effect', 'weight');
    for (const edge of own.slice(0, 15)) {
      const other = data.nodes[edge[there]];
      const button = row(list, '', ...edge.slice(2).map(number)).firstChild.appendChild(
        Object.assign(document.createElement('button'), {textContent: other.name}));
      button.addEventListener('click', () => choose(edge[there]));
    }
  }
}

function row(table, name, ...values) {
  const made = make(table, 'tr');
  make(made, 'td', {}, name);
  for (const value of values) make(made, 'td', {}, value);
  return made;
}

const [nodes, edges] = ['nodes', 'edges'].map(id => document.getElementById(id));
for (const slider of [nodes, edges]) {
  slider.addEventListener('input', () => {
    slider.nextElementSibling.textContent = `${slider.value}%`;
    draw();
  });
}
draw();
card();
"""
