// The rest of the page: links to layers, tabs, copying, printing.
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-show]");
  if (link) { event.preventDefault(); show(link); return; }
  const line = event.target.closest(".differences tbody tr:not(.part)");
  const own = line && line.querySelector("a[data-show]");
  if (own && !event.target.closest("a, button, code") && !String(getSelection())) show(own);
  const button = event.target.closest("button[data-copy]");
  if (button) copy(button);
});

async function copy(button) {
  const code = button.previousElementSibling;
  try {
    await navigator.clipboard.writeText(code.textContent);
  } catch {
    // Without leave to write the clipboard, the command is at least selected.
    getSelection().selectAllChildren(code);
    document.execCommand("copy");
  }
  button.textContent = "copied";
  setTimeout(() => { button.textContent = "copy"; }, 1500);
}

function pick(tabs, chosen) {
  for (const tab of tabs) {
    tab.setAttribute("aria-selected", String(tab === chosen));
    tab.tabIndex = tab === chosen ? 0 : -1;
    document.getElementById(tab.getAttribute("aria-controls")).hidden = tab !== chosen;
  }
}

for (const bar of document.querySelectorAll("[role=tablist]")) {
  const tabs = [...bar.children];
  bar.hidden = false;
  for (const tab of tabs) {
    const panel = document.getElementById(tab.getAttribute("aria-controls"));
    panel.setAttribute("role", "tabpanel");
    panel.setAttribute("aria-labelledby", tab.id);
    tab.addEventListener("click", () => pick(tabs, tab));
  }
  bar.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    const next = tabs[(tabs.indexOf(event.target) + by + tabs.length) % tabs.length];
    pick(tabs, next);
    next.focus();
    event.preventDefault();
  });
  pick(tabs, tabs[Number(slots[0] || 0)]);
}

window.addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("details:not(.long)")) part.open = true;
});
