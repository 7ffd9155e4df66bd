// Light or dark, and the way around the page.
const THEME = "xaikit-report:theme";

X.startPage = () => {
  const root = document.documentElement;
  const dark = () => root.dataset.theme === "dark" || (!root.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
  try {
    const kept = localStorage.getItem(THEME);
    if (kept === "light" || kept === "dark") root.dataset.theme = kept;
  } catch {
    // Without storage the system's choice holds.
  }
  X.byId("theme").addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    try { localStorage.setItem(THEME, root.dataset.theme); } catch { /* As above. */ }
    X.change(null);
  });

  // The address holds the view, so links within the page only scroll.
  document.querySelectorAll('a[href^="#"]').forEach((link) => link.addEventListener("click", (event) => {
    event.preventDefault();
    const target = X.byId(link.getAttribute("href").slice(1));
    target.scrollIntoView();
    const title = target.querySelector("h1, h2");
    title.tabIndex = -1;
    title.focus({ preventScroll: true });
  }));
  const links = new Map([...document.querySelectorAll(".bar nav a")].map((link) => [link.getAttribute("href").slice(1), link]));
  const watch = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      links.forEach((link) => link.removeAttribute("aria-current"));
      links.get(entry.target.id)?.setAttribute("aria-current", "true");
    }
  }, { rootMargin: "-30% 0px -60% 0px" });
  document.querySelectorAll("main > section").forEach((section) => watch.observe(section));

  X.byId("copy-command")?.addEventListener("click", async (event) => {
    try {
      await navigator.clipboard.writeText(X.byId("command").textContent);
      event.target.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(X.byId("command"));
    }
  });
};
