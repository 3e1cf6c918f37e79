/*
 * page_head.c - style, script and policy of a page; see page.h.
 *
 * The page loads nothing: the policy forbids it, for the page itself and for whatever could slip
 * through the escaping. Of scripts it allows the one below, by its hash, and no other.
 * tests/launcher/test_report.sh computes the hash again and prints the one that is wanted here.
 */
#include "report/page.h"

#define POLICY                                                                                     \
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "              \
    "form-action 'none'; script-src 'sha256-jH4H9GwyepQUoW5bPEhN2Egyl4Ho8P1OCM5mom35RMg='"

/* Okabe and Ito's palette, a little darker on white and lighter on black. */
#define LIGHT                                                                                      \
    "color-scheme:light;--bg:#fff;--fg:#1c2127;--muted:#5a6470;--line:#d8dde3;--soft:#f4f6f8;"     \
    "--link:#0b63a5;--c0:#0072b2;--c1:#d55e00;--c2:#009e73;--c3:#b4599a;--c4:#c08400;--c5:#"       \
    "4fa3d9;"                                                                                      \
    "--warn:#7a4f00;--warn-soft:#fff3dc;--inside:#fff;"
#define DARK                                                                                       \
    "color-scheme:dark;--bg:#14171b;--fg:#e6e9ec;--muted:#9aa4af;--line:#333a42;--soft:#1d2227;"   \
    "--link:#6db6f2;--c0:#56a8e8;--c1:#f08a4b;--c2:#35c29a;--c3:#df9ccb;--c4:#e8b33e;--c5:#"       \
    "9fd3f5;"                                                                                      \
    "--warn:#f0c674;--warn-soft:#33280f;--inside:#0c1116;"

static const char STYLE[] =
    ":root{" LIGHT "}\n"
    "@media (prefers-color-scheme:dark){:root:not([data-theme=light]){" DARK "}}\n"
    ":root[data-theme=dark]{" DARK "}\n"
    "*{box-sizing:border-box}\n"
    "html{scroll-padding-top:52px}\n"
    "body{margin:0;background:var(--bg);color:var(--fg);font:15px/1.5 system-ui,-apple-system,"
    "\"Segoe UI\",Roboto,\"Helvetica Neue\",\"Noto Sans\",sans-serif}\n"
    "main,header>div,nav>div{max-width:1140px;margin:0 auto;padding:0 16px}\n"
    "main{padding-bottom:56px}\n"
    "header{padding-top:22px}\n"
    "header>div{display:flex;gap:12px;align-items:flex-start;justify-content:space-between}\n"
    "h1{font-size:24px;line-height:1.25;margin:0;overflow-wrap:anywhere}\n"
    "h2{font-size:19px;margin:0 0 12px;padding-top:34px}\n"
    "h3{font-size:15px;margin:22px 0 8px}\n"
    "p{margin:0 0 10px;max-width:78ch}\n"
    "a{color:var(--link)}\n"
    "button{font:inherit;font-size:13px;color:var(--fg);background:var(--soft);"
    "border:1px solid var(--line);border-radius:6px;padding:3px 10px;cursor:pointer}\n"
    "nav{position:sticky;top:0;z-index:2;background:var(--bg);border-bottom:1px solid var(--line);"
    "margin-top:14px}\n"
    "nav>div{display:flex;gap:18px;overflow-x:auto;white-space:nowrap;font-size:14px}\n"
    "nav a{padding:9px 0;text-decoration:none}\n"
    "nav a:hover{text-decoration:underline}\n"
    ".under,.note,.about{color:var(--muted)}\n"
    ".under{margin:2px 0 0;overflow-wrap:anywhere}\n"
    ".note{font-size:14px}\n"
    ".about{font-size:12.5px;line-height:1.4;margin:6px 0 0;max-width:none}\n"
    ".state{display:inline-block;font-size:13px;font-weight:600;border-radius:20px;padding:1px "
    "10px;"
    "vertical-align:middle;background:var(--soft);border:1px solid "
    "var(--line);white-space:nowrap}\n"
    ".state.bad{background:var(--warn-soft);color:var(--warn);border-color:var(--warn)}\n"
    ".tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(178px,1fr));gap:10px;"
    "margin:4px 0 16px}\n"
    ".tile{background:var(--soft);border-radius:8px;padding:10px 14px}\n"
    ".tile b{display:block;font-size:20px;line-height:1.25;font-variant-numeric:tabular-nums}\n"
    ".tile span{display:block;font-size:13px;color:var(--muted);line-height:1.35}\n"
    ".lead{font-size:16.5px}\n"
    "ul.warnings{list-style:none;margin:14px 0;padding:10px 14px;border-radius:8px;"
    "background:var(--warn-soft);color:var(--warn)}\n"
    "ul.warnings li{margin:3px 0;max-width:90ch}\n"
    ".charts{display:grid;gap:14px;grid-template-columns:repeat(auto-fill,minmax(min(100%,340px),"
    "1fr));align-items:start;margin:4px 0 14px}\n"
    "figure{margin:0;border:1px solid var(--line);border-radius:8px;padding:10px 12px 12px;"
    "min-width:0;break-inside:avoid}\n"
    "figure.wide{grid-column:1/-1}\n"
    "figcaption{font-weight:600;font-size:14px;margin-bottom:4px;overflow-wrap:anywhere}\n"
    "figure svg{display:block;width:100%;height:auto}\n"
    "figure.wide .scroll>svg{max-width:820px}\n"
    "svg text{font-size:12px;fill:var(--fg);font-family:inherit}\n"
    "svg .tick{font-size:11px;fill:var(--muted);font-variant-numeric:tabular-nums}\n"
    "svg .inside{font-size:11px;fill:var(--inside)}\n"
    ".m{text-anchor:middle}.e{text-anchor:end}\n"
    ".grid{stroke:var(--line);stroke-width:1;opacity:.7}\n"
    ".axis{stroke:var(--muted);stroke-width:1;fill:none}\n"
    ".rule{stroke:var(--muted);stroke-width:1.2;stroke-dasharray:4 4;fill:none}\n"
    ".s0{--c:var(--c0)}.s1{--c:var(--c1)}.s2{--c:var(--c2)}.s3{--c:var(--c3)}.s4{--c:var(--c4)}"
    ".s5{--c:var(--c5)}\n"
    ".l{fill:none;stroke:var(--c);stroke-width:2;stroke-linejoin:round}\n"
    ".l.thin{stroke-width:1.2}.l.faint{opacity:.45;stroke-width:1}\n"
    ".f{fill:var(--c)}.f.wash{fill-opacity:.16}.f.part{stroke:var(--bg);stroke-width:1.5}\n"
    ".dots{fill:none;stroke:var(--c);stroke-linecap:round;opacity:.75}\n"
    ".d1{stroke-dasharray:7 4}.d2{stroke-dasharray:2 3}.d3{stroke-dasharray:9 3 2 3}\n"
    ".q1{fill-opacity:.1}.q2{fill-opacity:.22}.q3{fill-opacity:.34}.q4{fill-opacity:.46}"
    ".q5{fill-opacity:.58}.q6{fill-opacity:.7}.q7{fill-opacity:.84}.q8{fill-opacity:1}\n"
    ".legend{display:flex;flex-wrap:wrap;gap:2px 14px;font-size:12.5px;color:var(--muted);"
    "margin-top:4px}\n"
    ".legend span{display:inline-flex;align-items:center;gap:5px}\n"
    ".legend svg{width:24px;height:12px;flex:none}\n"
    ".scroll{overflow-x:auto}.scroll:has(table){margin-bottom:12px}\n"
    "table{border-collapse:collapse;font-size:14px;font-variant-numeric:tabular-nums}\n"
    "th,td{text-align:left;padding:4px 14px 4px 0;border-bottom:1px solid var(--line);"
    "vertical-align:top;white-space:nowrap}\n"
    "th{color:var(--muted);font-weight:600;font-size:13px}\n"
    "th.n,td.n{text-align:right}\n"
    "tr.sum td{font-weight:600;border-top:2px solid var(--line)}\n"
    "tr.best td:first-child{font-weight:600}\n"
    "td.text{white-space:normal;min-width:260px;max-width:70ch;overflow-wrap:anywhere;"
    "unicode-bidi:isolate}\n"
    "td.value{white-space:normal;min-width:140px;overflow-wrap:anywhere;"
    "font-family:ui-monospace,\"SF Mono\",Menlo,Consolas,\"DejaVu Sans "
    "Mono\",monospace;font-size:13px}\n"
    "code,pre{font-family:ui-monospace,\"SF Mono\",Menlo,Consolas,\"DejaVu Sans Mono\",monospace;"
    "font-size:13px}\n"
    "details{margin:10px 0}summary{cursor:pointer;color:var(--link);font-size:14px}\n"
    "td details{margin:2px 0}\n"
    "#tip{position:fixed;z-index:3;pointer-events:none;background:var(--bg);color:var(--fg);"
    "border:1px solid var(--line);border-radius:6px;padding:5px 9px;font-size:12.5px;"
    "line-height:1.4;white-space:pre;box-shadow:0 2px 10px rgba(0,0,0,.18);"
    "font-variant-numeric:tabular-nums}\n"
    "[hidden]{display:none!important}\n"
    "footer{color:var(--muted);font-size:13px;margin-top:40px;padding-top:12px;"
    "border-top:1px solid var(--line)}\n"
    "@media (max-width:520px){h1{font-size:20px}.tile b{font-size:17px}main,header>div,nav>div{"
    "padding-left:12px;padding-right:12px}.tiles{grid-template-columns:1fr 1fr}"
    "figure{padding:8px 8px 10px}table.texts,table.texts tbody,table.texts thead,table.texts tr{"
    "display:block}table.texts td,table.texts th{display:inline-block;border:0;padding-right:12px}"
    "table.texts td.text{display:block;min-width:0;border-bottom:1px solid var(--line)}"
    "table.texts th:last-child{display:none}}\n"
    "@media print{:root,:root[data-theme=dark],:root:not([data-theme=light]){" LIGHT "}"
    "@page{margin:13mm}body{font-size:10pt}nav,button,#tip{display:none!important}"
    "main,header>div{max-width:none;padding:0}.charts{grid-template-columns:1fr 1fr;gap:8px}"
    ".scroll{overflow:visible}h2{padding-top:16px;break-after:avoid}h3{break-after:avoid}"
    "table{font-size:8.5pt}th,td{white-space:normal;padding-right:8px}td.n,th.n{white-space:nowrap}"
    "tr{break-inside:avoid}td.text{min-width:0}svg .tick{font-size:10px}"
    "figure.wide .scroll>svg{min-width:0!important}"
    "*{-webkit-print-color-adjust:exact;print-color-adjust:exact}}\n";

/* The button for light and dark, and the values under the pointer. Without it all can be read. No
 * '<' and no '&' in it: the page is XML, too. */
static const char SCRIPT[] =
    "\n(function () {\n"
    "\"use strict\";\n"
    "var root = document.documentElement, button = document.getElementById(\"theme\");\n"
    "button.hidden = false;\n"
    "button.addEventListener(\"click\", function () {\n"
    "  var now = root.getAttribute(\"data-theme\");\n"
    "  var dark = now ? now === \"dark\" : matchMedia(\"(prefers-color-scheme: dark)\").matches;\n"
    "  root.setAttribute(\"data-theme\", dark ? \"light\" : \"dark\");\n"
    "});\n"
    "var tip = document.getElementById(\"tip\");\n"
    "function scale(text) {\n"
    "  var p = text.split(\",\");\n"
    "  return {kind: p[0], low: +p[1], high: +p[2], from: +p[3], to: +p[4]};\n"
    "}\n"
    "function value(s, at) {\n"
    "  var t = (at - s.from) / (s.to - s.from);\n"
    "  if (s.kind === \"log\") return s.low * Math.pow(s.high / s.low, t);\n"
    "  if (s.kind === \"counts\") return Math.expm1(t * Math.log1p(s.high));\n"
    "  return s.low + t * (s.high - s.low);\n"
    "}\n"
    "function words(v, s) {\n"
    "  var digits = s.kind === \"linear\" ? 3 : 2, size = Math.max(Math.abs(s.low), "
    "Math.abs(s.high));\n"
    "  if (s.kind === \"linear\") v = Math.abs(v) > size * 1e-4 ? v : 0;\n"
    "  if (v === 0) return \"0\";\n"
    "  if (Math.abs(v) >= 1e6) return v.toExponential(2);\n"
    "  if (1e-3 > Math.abs(v)) return v.toExponential(1);\n"
    "  return String(+v.toPrecision(Math.abs(v) >= 1000 ? 6 : digits + 1));\n"
    "}\n"
    "function points(line) {\n"
    "  return line.getAttribute(\"points\").trim().split(/\\s+/).map(function (p) {\n"
    "    var xy = p.split(\",\");\n"
    "    return {x: +xy[0], y: +xy[1]};\n"
    "  });\n"
    "}\n"
    "Array.prototype.forEach.call(document.querySelectorAll(\"g.plot\"), function (plot) {\n"
    "  var svg = plot.ownerSVGElement, title = svg.querySelector(\"title\");\n"
    "  var x = scale(plot.getAttribute(\"data-x\")), y = scale(plot.getAttribute(\"data-y\"));\n"
    "  var lines = null, rule = document.createElementNS(svg.namespaceURI, \"path\");\n"
    "  rule.setAttribute(\"class\", \"rule\");\n"
    "  plot.appendChild(rule);\n"
    "  svg.setAttribute(\"aria-label\", title.textContent);\n"
    "  svg.removeAttribute(\"aria-labelledby\");\n"
    "  title.remove();\n"
    "  function hide() {\n"
    "    tip.hidden = true;\n"
    "    rule.removeAttribute(\"d\");\n"
    "  }\n"
    "  svg.addEventListener(\"pointerleave\", hide);\n"
    "  svg.addEventListener(\"pointermove\", function (event) {\n"
    "    var box = svg.getBoundingClientRect(), view = svg.viewBox.baseVal;\n"
    "    var at = {x: (event.clientX - box.left) * view.width / box.width,\n"
    "              y: (event.clientY - box.top) * view.height / box.height};\n"
    "    if (lines === null)\n"
    "      lines = Array.prototype.map.call(plot.querySelectorAll(\"polyline[data-name]\"), "
    "function (l) {\n"
    "        return {name: l.getAttribute(\"data-name\"), points: points(l)};\n"
    "      });\n"
    "    if (x.from > at.x || at.x > x.to || lines.length === 0) return hide();\n"
    "    var found = lines.map(function (line) {\n"
    "      var best = line.points[0];\n"
    "      line.points.forEach(function (p) {\n"
    "        var nearer = Math.abs(best.x - at.x) - Math.abs(p.x - at.x);\n"
    "        if (nearer > 0.01 || (nearer > -0.01 ? Math.abs(best.y - at.y) > Math.abs(p.y - at.y) "
    ": false))\n"
    "          best = p;\n"
    "      });\n"
    "      return {name: line.name, point: best};\n"
    "    });\n"
    "    found.sort(function (a, b) {\n"
    "      return Math.abs(a.point.y - at.y) - Math.abs(b.point.y - at.y);\n"
    "    });\n"
    "    found = found.slice(0, 8);\n"
    "    rule.setAttribute(\"d\", \"M\" + found[0].point.x + \" \" + y.to + \"V\" + y.from);\n"
    "    tip.textContent = words(value(x, found[0].point.x), x) + found.map(function (f) {\n"
    "      return \"\\n\" + f.name + \": \" + words(value(y, f.point.y), y);\n"
    "    }).join(\"\");\n"
    "    tip.hidden = false;\n"
    "    var left = event.clientX + 14, top = event.clientY + 14;\n"
    "    if (left + tip.offsetWidth + 8 > innerWidth) left = event.clientX - tip.offsetWidth - "
    "14;\n"
    "    if (top + tip.offsetHeight + 8 > innerHeight) top = event.clientY - tip.offsetHeight - "
    "14;\n"
    "    tip.style.left = Math.max(4, left) + \"px\";\n"
    "    tip.style.top = Math.max(4, top) + \"px\";\n"
    "  });\n"
    "});\n"
    "})();\n";

void page_begin(struct page *page, const char *title)
{
    page_raw(page, "<!DOCTYPE html>\n"
                   "<html lang=\"en\" xmlns=\"http://www.w3.org/1999/xhtml\">\n<head>\n"
                   "<meta charset=\"utf-8\"/>\n"
                   "<meta http-equiv=\"Content-Security-Policy\" content=\"" POLICY "\"/>\n"
                   "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n"
                   "<meta name=\"generator\" content=\"cohort " COHORT_VERSION "\"/>\n"
                   "<title>");
    page_text(page, title);
    page_raw(page, "</title>\n<style>\n");
    page_raw(page, STYLE);
    page_raw(page, "</style>\n</head>\n<body>\n<header><div><div>");
}

void page_links(struct page *page, const char *const *pairs)
{
    page_raw(page, "</div><button id=\"theme\" type=\"button\" hidden=\"hidden\" "
                   "title=\"light or dark\">light / dark</button></div></header>\n"
                   "<nav aria-label=\"Sections\"><div>");
    for (; pairs[0] != NULL; pairs += 2) {
        page_raw(page, "<a href=\"#");
        page_text(page, pairs[0]);
        page_raw(page, "\">");
        page_text(page, pairs[1]);
        page_raw(page, "</a>");
    }
    page_raw(page, "</div></nav>\n<main>\n");
}

void page_end(struct page *page)
{
    page_raw(page,
             "<footer>Written by cohort " COHORT_VERSION ". One file, nothing is loaded from "
             "elsewhere.</footer>\n</main>\n<div id=\"tip\" hidden=\"hidden\"></div>\n<script>");
    page_raw(page, SCRIPT);
    page_raw(page, "</script>\n</body>\n</html>\n");
}
