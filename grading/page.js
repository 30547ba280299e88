"use strict";
const root = document.documentElement, find = (selector) => document.querySelectorAll(selector);
const query = new URLSearchParams(location.search), form = document.getElementById("filter");

function remember() {
  const text = query.toString();
  history.replaceState(null, "", (text ? "?" + text : location.pathname) + location.hash);
}

function speak(lang) {
  root.dataset.lang = lang;
  root.lang = lang === "zh" ? "zh-CN" : "en";
  document.title = document.querySelector("h1 ." + lang).textContent;
  for (const option of find("option[data-zh]")) option.textContent = option.dataset[lang];
  for (const named of find("[aria-label][data-zh]")) named.setAttribute("aria-label", named.dataset[lang]);
  for (const titled of find("[title][data-zh]")) titled.title = titled.dataset[lang];
  const button = document.getElementById("language");
  button.textContent = lang === "zh" ? "English" : "中文";
  button.lang = lang === "zh" ? "en" : "zh-CN";
}
document.getElementById("language").addEventListener("click", () => {
  query.set("lang", root.dataset.lang === "zh" ? "en" : "zh");
  speak(query.get("lang"));
  remember();
});
speak(["en", "zh"].includes(query.get("lang")) ? query.get("lang") : navigator.language.startsWith("zh") ? "zh" : "en");

// The claims: a group is open while a filter leaves something in it.
const groups = [...find(".group")].map((group) => ({ group, open: group.open, rows: [...group.querySelectorAll("tbody tr")] }));
function filter() {
  const { q, report, verdict } = form.elements, wanted = q.value.trim().toLowerCase();
  const filtered = wanted || report.value || verdict.value;
  let shown = 0;
  for (const { group, open, rows } of groups) {
    for (const row of rows)
      row.hidden = (report.value && row.dataset.report !== report.value) || (verdict.value && row.dataset.verdict !== verdict.value)
        || (wanted && !row.textContent.toLowerCase().includes(wanted));
    const left = rows.filter((row) => !row.hidden).length;
    group.hidden = !left;
    group.open = filtered ? left > 0 : open;
    shown += left;
  }
  document.getElementById("shown").textContent = shown;
}
function fill() {
  for (const field of ["q", "report", "verdict"]) form.elements[field].value = query.get(field) || "";
  filter();
}
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("input", () => {
  for (const field of ["q", "report", "verdict"])
    if (form.elements[field].value) query.set(field, form.elements[field].value);
    else query.delete(field);
  filter();
  remember();
});
fill();

// A verdict of the summary sets the filter; the page stays loaded.
for (const link of find(".bar a, .legend a"))
  link.addEventListener("click", (event) => {
    event.preventDefault();
    for (const field of ["q", "report", "verdict"]) query.delete(field);
    for (const [field, value] of new URL(link.href).searchParams) query.set(field, value);
    fill();
    remember();
    location.hash = "claims";
  });

// A link to a claim shows it, wherever it is folded or filtered out.
function reveal() {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  const row = target.closest("tr");
  if (row && row.hidden) {
    for (const field of ["q", "report", "verdict"]) query.delete(field);
    fill();
    remember();
  }
  for (let element = target; element; element = element.parentElement) if (element.tagName === "DETAILS") element.open = true;
  target.scrollIntoView();
}
addEventListener("hashchange", reveal);
reveal();

// Tables that are wider than the page can be scrolled by keyboard, and only they.
function reach() {
  for (const box of find(".scroll"))
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
}
addEventListener("resize", reach);
for (const details of find("details")) details.addEventListener("toggle", reach);
reach();

// The navigation marks the section that is read.
const links = new Map([...find("nav a")].map((link) => [link.hash.slice(1), link]));
const observer = new IntersectionObserver(
  (entries) => entries.forEach(({ target, isIntersecting }) => links.get(target.id).classList.toggle("here", isIntersecting)),
  { rootMargin: "-10% 0px -85%" },
);
for (const id of links.keys()) observer.observe(document.getElementById(id));
