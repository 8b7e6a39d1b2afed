// Tabs that a mouse and a keyboard select: arrow keys, Home and End.

// `selected` is called with each tab that gets selected. Returns a function that selects a tab.
export function connectTabs(list, selected) {
  const tabs = [...list.children];
  const select = (tab) => {
    for (const other of tabs) {
      other.setAttribute("aria-selected", other === tab);
      other.tabIndex = other === tab ? 0 : -1;
    }
    selected(tab);
  };
  list.addEventListener("click", ({ target }) => {
    const tab = target.closest("[role=tab]");
    if (tab) select(tab);
  });
  list.addEventListener("keydown", (event) => {
    const able = tabs.filter((tab) => !tab.hidden);
    const at = able.indexOf(event.target);
    const last = able.length - 1;
    const to = { ArrowRight: at < last ? at + 1 : 0, ArrowLeft: at > 0 ? at - 1 : last, Home: 0, End: last }[event.key];
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    select(able[to]);
    able[to].focus();
  });
  return select;
}
