"""Style and script of a sweep's report, written into the page itself."""

CSS = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5b6675; --line: #d9dee5; --card: #ffffff; --ground: #f4f6f8;
        --accent: #0b6fb8; --band: #0b6fb822; --bad: #c8500a; --stop: #8a6d00; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6eaf0; --soft: #9aa5b4; --line: #333c48; --card: #1a2027; --ground: #11151a; --accent: #5db3f0;
          --band: #5db3f030; --bad: #ff9a5c; --stop: #e6c34a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1200px; margin: 0 auto; padding: 16px; }
h1 { font-size: 1.5rem; margin: 8px 0; } h2 { font-size: 1.1rem; margin: 0 0 8px; } h3 { font-size: 1rem; margin: 8px 0; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 16px; }
section, .card { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 16px; margin: 16px 0;
                 min-width: 0; }
.cards .card { margin: 0; }
.answer { border-left: 5px solid var(--accent); font-size: 1.05rem; }
.facts { display: flex; flex-wrap: wrap; gap: 4px 24px; color: var(--soft); margin: 0; padding: 0; list-style: none; }
.facts b { color: var(--ink); }
svg { width: 100%; height: auto; display: block; font: 12px system-ui, sans-serif; fill: var(--ink); }
@media (max-width: 600px) { svg { font-size: 16px; } }
svg .grid { stroke: var(--line); } svg .axis { fill: var(--soft); }
svg .curve path { fill: none; stroke-width: 2; } svg .curve path.one { stroke-width: 1; opacity: .35; }
svg .faded { opacity: .08; }
.chips { display: flex; flex-wrap: wrap; gap: 4px; margin: 8px 0; }
.chips button, select { font: inherit; font-size: .85rem; color: var(--ink); background: var(--card);
                        border: 1px solid var(--line); border-radius: 12px; padding: 1px 9px; cursor: pointer; }
.chips button i { display: inline-block; width: 10px; height: 10px; border-radius: 5px; margin-right: 5px; }
.chips button[aria-pressed=true] { border-color: var(--accent); box-shadow: 0 0 0 1px var(--accent); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: 3px 8px; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--soft); font-weight: 600; } td.heat { text-align: center; border: 1px solid var(--card); }
td.heat[style] span { color: inherit; }
.bad { color: var(--bad); } .stopped { color: var(--stop); } .note { color: var(--soft); font-size: .85rem; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; font-size: .85rem; }
"""

JS = """
for (const chips of document.querySelectorAll('.chips')) {
  const group = chips.closest('[data-group]');
  chips.addEventListener('click', event => {
    const button = event.target.closest('button');
    if (!button) return;
    button.setAttribute('aria-pressed', button.getAttribute('aria-pressed') !== 'true');
    const picked = new Set([...chips.querySelectorAll('[aria-pressed=true]')].map(b => b.dataset.lr));
    for (const curve of group.querySelectorAll('[data-lr].curve'))
      curve.classList.toggle('faded', picked.size > 0 && !picked.has(curve.dataset.lr));
  });
}
for (const select of document.querySelectorAll('select')) {
  const show = () => { for (const one of document.querySelectorAll('[data-choice="' + select.id + '"]'))
    one.hidden = one.dataset.value !== select.value; };
  select.addEventListener('change', show);
  show();
}
"""
