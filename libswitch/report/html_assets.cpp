#include "libswitch/report/html_assets.h"

namespace sw {

const char* const kPageStyle = R"css(
:root { color-scheme: light dark; --text: #1d2129; --faint: #69707d; --back: #fff; --card: #f5f6f8;
  --rule: #d9dce2; --bar: #4169b0; --good: #1c7c3c; --bad: #c02a16; }
@media (prefers-color-scheme: dark) { :root { --text: #e4e6ea; --faint: #9aa1ad; --back: #16181d;
  --card: #20242b; --rule: #3a404a; --bar: #7fa3e6; --good: #67c587; --bad: #ff8a73; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back);
  max-width: 78rem; margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .4rem; } p { margin: .4rem 0; }
.faint, caption, figcaption { color: var(--faint); font-size: .87rem; }
caption { text-align: left; padding-bottom: .3rem; }
code { font: .9em ui-monospace, monospace; overflow-wrap: anywhere; }
ul.verdicts { list-style: none; padding: 0; margin: 1rem 0; }
.verdicts li { padding: .35rem .8rem; margin: .3rem 0; background: var(--card);
  border-left: 4px solid var(--bad); } .verdicts li.good { border-color: var(--good); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .86rem; }
th, td { padding: .18rem .42rem; text-align: right; border-bottom: 1px solid var(--rule);
  white-space: nowrap; }
th { font-weight: 600; cursor: default; } th.sorts { cursor: pointer; }
th:first-child, td:first-child, .left { text-align: left; } td.tokens { white-space: normal; }
td.bad { color: var(--bad); font-weight: 600; }
.wide { overflow-x: auto; } .charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(24rem, 1fr)); gap: 1rem;
  margin-top: .6rem; }
.chip { display: inline-block; margin-right: .9rem; }
figure { margin: 0; }
figcaption { margin: .2rem 0; } figcaption.title { color: var(--text); font-size: .95rem; }
.charts svg.bars { width: 100%; } svg.bars path { fill: var(--bar); } svg.bars line { stroke: var(--bad); stroke-dasharray: 3 3; }
svg.lines { width: 100%; } svg.lines polyline { fill: none; stroke-width: 1.6; }
svg.lines polyline:hover { stroke-width: 4; }
svg.lines text { font-size: 11px; fill: var(--faint); } svg.lines text.y { text-anchor: end; }
svg.lines .grid { stroke: var(--rule); stroke-width: .6; }
img.heat { width: 100%; image-rendering: pixelated; display: block; }
.scale { display: inline-block; width: 8rem; height: .7rem; vertical-align: -1px; margin: 0 .35rem;
  background: linear-gradient(90deg, #440154, #414487, #2a788e, #22a884, #7ad151, #fde725); }
.zero { display: inline-block; width: .7rem; height: .7rem; background: #c8321e;
  vertical-align: -1px; }
.key { display: inline-block; width: 1.1rem; height: .25rem; vertical-align: 3px;
  margin-right: .3rem; }
details { margin: .5rem 0; border: 1px solid var(--rule); border-radius: 6px; padding: .45rem .8rem; }
details > summary { cursor: pointer; } details.layer > summary { font-weight: 600; }
)css";

const char* const kPageScript = R"js(
'use strict';
const number = cell => parseFloat(cell.textContent.replace(/,/g, ''));
function sortable(table) {
  table.querySelectorAll('thead th').forEach((head, column) => {
    head.classList.add('sorts');
    head.addEventListener('click', () => {
      const body = table.tBodies[0], up = head.dataset.up !== '1';
      head.dataset.up = up ? '1' : '0';
      const rows = [...body.rows].sort((a, b) => {
        const x = a.cells[column], y = b.cells[column], d = number(x) - number(y);
        return (Number.isNaN(d) ? x.textContent.localeCompare(y.textContent) : d) * (up ? 1 : -1);
      });
      body.append(...rows);
    });
  });
}
document.querySelectorAll('table.figures').forEach(sortable);
// The table behind a picture: {"head": [...], "columns": [[...], ...]}.
document.querySelectorAll('details[data-table]').forEach(details => {
  details.addEventListener('toggle', () => {
    if (!details.open || details.querySelector('table')) return;
    const data = JSON.parse(document.getElementById(details.dataset.table).textContent);
    const table = document.createElement('table'), head = table.createTHead().insertRow();
    for (const name of data.head) {
      const cell = document.createElement('th');
      cell.textContent = name;
      head.append(cell);
    }
    const body = table.createTBody();
    for (let i = 0; i < data.columns[0].length; ++i) {
      const row = body.insertRow();
      for (const column of data.columns) row.insertCell().textContent = column[i] ?? '-';
    }
    const box = document.createElement('div');
    box.className = 'wide';
    box.append(table);
    details.append(box);
    sortable(table);
  });
});
)js";

}  // namespace sw
