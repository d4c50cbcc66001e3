//! Pieces of a page that needs no other file: no script, no network, no font.

use std::fmt::Write as _;

use mixskd_chart::escape;

use crate::cells::Embedded;

const STYLE: &str = "
:root{color-scheme:light dark;--ink:#1d2126;--paper:#fff;--soft:#5c6570;--rule:#d9dce1;--card:#f6f7f9}
@media screen and (prefers-color-scheme:dark){:root{--ink:#e6e8eb;--paper:#15181c;--soft:#a3abb5;--rule:#3b4047;--card:#1d2126}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1180px;padding:16px;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.5rem;line-height:1.25}h3{font-size:1rem;margin:1rem 0 .3rem;break-after:avoid}h2{font-size:1.2rem;margin-top:2rem;border-bottom:1px solid var(--rule);break-after:avoid}
.soft,figcaption{color:var(--soft);font-size:.9rem}p.soft{break-after:avoid}figcaption b{color:var(--ink)}
.wide{overflow-x:auto}
table{border-collapse:collapse}th,td{padding:4px 12px 4px 0;text-align:left;border-bottom:1px solid var(--rule);vertical-align:top}
th,td{overflow-wrap:break-word}.told td,.told th+th{overflow-wrap:anywhere;font-weight:400}.told th:first-child{white-space:nowrap}tr{break-inside:avoid}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,340px),1fr));gap:16px}.grid>figure:only-child{max-width:760px}.grid>*{min-width:0}
figure{margin:0;break-inside:avoid}figure svg{display:block;width:100%;height:auto;border:1px solid var(--rule)}
.images{display:grid;grid-template-columns:repeat(2,1fr);gap:14px}
@media(min-width:560px){.images{grid-template-columns:repeat(4,1fr)}}
@media(min-width:860px){.images{grid-template-columns:repeat(6,1fr)}}
@media(min-width:1120px){.images{grid-template-columns:repeat(8,1fr)}}
.images img{width:100%;height:auto;display:block;image-rendering:pixelated;border:1px solid var(--rule)}
.images figcaption{line-height:1.35;margin-top:4px}
.matrix{max-width:760px}
pre{background:var(--card);padding:12px;white-space:pre-wrap;font-size:.85rem}
@media print{body{max-width:none;padding:0;font-size:11pt}.grid{grid-template-columns:1fr 1fr}.images{grid-template-columns:repeat(6,1fr)}.images figcaption{font-size:8pt}.matrix{max-width:520px}.wide{overflow:visible}.wide>div{min-width:0!important}table{font-size:9pt}pre{columns:2;font-size:8pt}}
";

/// A page in the making.
pub(crate) struct Page(String);

impl Page {
    /// A page of this title.
    pub(crate) fn new(title: &str) -> Self {
        Self(format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n<link rel=\"icon\" href=\"data:,\">\n<title>{0}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{0}</h1>\n",
            escape(title)
        ))
    }

    /// A heading.
    pub(crate) fn section(&mut self, title: &str) {
        let _ = writeln!(self.0, "<h2>{}</h2>", escape(title));
    }

    /// A heading below [`Self::section`]'s.
    pub(crate) fn subsection(&mut self, title: &str) {
        let _ = writeln!(self.0, "<h3>{}</h3>", escape(title));
    }

    /// Parts side by side where there is room.
    pub(crate) fn grid(&mut self, parts: impl FnOnce(&mut Self)) {
        self.0.push_str("<div class=\"grid\">\n");
        parts(self);
        self.0.push_str("</div>\n");
    }

    /// One part of a grid.
    pub(crate) fn part(&mut self, part: impl FnOnce(&mut Self)) {
        self.0.push_str("<div>\n");
        part(self);
        self.0.push_str("</div>\n");
    }

    /// A paragraph.
    pub(crate) fn text(&mut self, text: &str) {
        let _ = writeln!(self.0, "<p>{}</p>", escape(text));
    }

    /// A paragraph that stands back.
    pub(crate) fn note(&mut self, text: &str) {
        let _ = writeln!(self.0, "<p class=\"soft\">{}</p>", escape(text));
    }

    /// Text as it is.
    pub(crate) fn code(&mut self, text: &str) {
        let _ = writeln!(self.0, "<pre>{}</pre>", escape(text.trim_end()));
    }

    /// Rows of cells; the first row and the first column are headings, `numbers` says from which column on cells are numbers.
    pub(crate) fn table(&mut self, rows: &[Vec<String>], numbers: usize) {
        // Without numbers it is a list of words, such as paths, which break where they must.
        let columns = rows.first().map_or(0, Vec::len);
        let class = if numbers >= columns {
            " class=\"told\""
        } else {
            ""
        };
        let _ = writeln!(self.0, "<div class=\"wide\"><table{class}>");
        for (at, row) in rows.iter().enumerate() {
            self.0.push_str("<tr>");
            for (column, cell) in row.iter().enumerate() {
                let class = if column >= numbers {
                    " class=\"n\""
                } else {
                    ""
                };
                let cell = escape(cell);
                let _ = match (at, column) {
                    (0, _) => write!(self.0, "<th scope=\"col\"{class}>{cell}</th>"),
                    (_, 0) => write!(self.0, "<th scope=\"row\"{class}>{cell}</th>"),
                    _ => write!(self.0, "<td{class}>{cell}</td>"),
                };
            }
            self.0.push_str("</tr>\n");
        }
        self.0.push_str("</table></div>\n");
    }

    /// Charts side by side where there is room.
    pub(crate) fn charts(&mut self, charts: &[String]) {
        self.0.push_str("<div class=\"grid\">\n");
        for svg in charts {
            let _ = writeln!(self.0, "<figure>{svg}</figure>");
        }
        self.0.push_str("</div>\n");
    }

    /// A drawing in the width it needs to be read: where there is less, it scrolls in its own place.
    pub(crate) fn drawing(&mut self, svg: &str, readable_width: f64, caption: &str) {
        // Nor so wide that a few cells fill the page.
        let greatest = if readable_width > 0.0 {
            format!(";max-width:{:.0}px", 2.2 * readable_width)
        } else {
            String::new()
        };
        let _ = writeln!(
            self.0,
            "<figure class=\"matrix\"><div class=\"wide\" tabindex=\"0\"><div style=\"min-width:{readable_width:.0}px{greatest}\">{svg}</div></div><figcaption>{}</figcaption></figure>",
            escape(caption)
        );
    }

    /// Pictures with what is said of each.
    pub(crate) fn images(&mut self, cells: &[Embedded]) {
        self.0.push_str("<div class=\"images\">\n");
        for cell in cells {
            let lines: Vec<_> = cell.lines.iter().map(|line| escape(line)).collect();
            let (first, others) = lines.split_first().map_or(("", &[][..]), |(a, b)| (a, b));
            let rest = others.join("<br>");
            let _ = writeln!(
                self.0,
                "<figure><img alt=\"{}\" width=\"{}\" height=\"{}\" src=\"{}\"><figcaption><b>{first}</b><br>{rest}</figcaption></figure>",
                lines.join(", "),
                cell.width,
                cell.height,
                cell.uri
            );
        }
        self.0.push_str("</div>\n");
    }

    /// The whole text.
    pub(crate) fn finish(self) -> String {
        self.0 + "</body>\n</html>\n"
    }
}
