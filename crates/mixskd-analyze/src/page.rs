//! The analysis as one HTML file that needs no other: no script, no network.

use std::fmt::Write as _;

use crate::figures::{Figure, escape};
use crate::summary::summary;
use crate::{Analysis, Picture, PictureFile};

const STYLE: &str = "
:root{color-scheme:light dark;--ink:#1d2126;--paper:#fff;--soft:#5c6570;--rule:#d9dce1;--card:#f6f7f9}
@media screen and (prefers-color-scheme:dark){:root{--ink:#e6e8eb;--paper:#15181c;--soft:#a3abb5;--rule:#3b4047;--card:#1d2126}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1180px;padding:16px;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
h1{font-size:1.5rem;line-height:1.25}h2{font-size:1.2rem;margin-top:2rem;border-bottom:1px solid var(--rule)}
p.soft,figcaption{color:var(--soft);font-size:.9rem}
.wide{overflow-x:auto}
table{border-collapse:collapse}th,td{padding:4px 12px 4px 0;text-align:left;border-bottom:1px solid var(--rule);vertical-align:top}
td.n{text-align:right;font-variant-numeric:tabular-nums}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr));gap:16px}
figure{margin:0;break-inside:avoid}figure svg{width:100%;height:auto;border:1px solid var(--rule)}
.looks{display:flex;flex-wrap:wrap;gap:12px}.looks figure{width:168px}.looks img{width:168px;height:auto;display:block}
.image{background:var(--card);padding:12px;margin:12px 0;break-inside:avoid}
.image h3{margin:0 0 8px;font-size:1rem}
code{overflow-wrap:anywhere}
";

impl Analysis {
    /// The page, with the charts of [`Self::figures`] in it.
    pub fn html(&self, figures: &[Figure]) -> String {
        let title = format!("Analysis on {}", self.data);
        let mut page = format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n<title>{0}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{0}</h1>\n",
            escape(&title)
        );
        let _ = writeln!(
            page,
            "<p>{} of {} test images of {} classes; drawn by seed {}.</p>",
            self.images,
            self.test_images,
            self.classes.len(),
            self.config.seed
        );
        self.table(&mut page);
        section(&mut page, "Charts");
        page.push_str("<div class=\"grid\">\n");
        for figure in figures {
            let _ = writeln!(
                page,
                "<figure>{}<figcaption>{}</figcaption></figure>",
                figure.svg,
                escape(&figure.caption)
            );
        }
        page.push_str("</div>\n");
        self.class_table(&mut page);
        if !self.pictures.is_empty() {
            section(&mut page, "Where the networks look (Grad-CAM)");
            let which = if self.config.images.is_empty() {
                "The images on which A has the largest loss."
            } else {
                "The images that were asked for."
            };
            let _ = writeln!(
                page,
                "<p class=\"soft\">{which} Yellow places speak for the class named below the picture, violet ones do not; each picture has its own scale.</p>"
            );
            for picture in &self.pictures {
                image(&mut page, picture);
            }
        }
        page + "</body>\n</html>\n"
    }

    fn table(&self, page: &mut String) {
        page.push_str("<div class=\"wide\"><table>\n");
        for (k, row) in summary(self).iter().enumerate() {
            page.push_str("<tr>");
            for (column, cell) in row.iter().enumerate() {
                let cell = escape(cell);
                let _ = match (k, column) {
                    (0, _) => write!(page, "<th>{cell}</th>"),
                    (_, 0) => write!(page, "<th scope=\"row\">{cell}</th>"),
                    _ => write!(page, "<td>{cell}</td>"),
                };
            }
            page.push_str("</tr>\n");
        }
        page.push_str("</table></div>\n");
    }

    fn class_table(&self, page: &mut String) {
        if self.networks.iter().all(|n| n.per_class.is_none()) {
            return;
        }
        section(page, "Classes");
        page.push_str("<div class=\"wide\"><table>\n<tr><th>class</th><th>images</th>");
        for network in &self.networks {
            let _ = write!(
                page,
                "<th>{0} top-1</th><th>{0} takes it for</th>",
                network.name
            );
        }
        page.push_str("</tr>\n");
        for (k, class) in self.classes.iter().enumerate() {
            let scores = self
                .networks
                .iter()
                .filter_map(|network| network.per_class.as_ref()?.get(k))
                .collect::<Vec<_>>();
            let images = scores.first().map_or(0, |score| score.images);
            let _ = write!(
                page,
                "<tr><th scope=\"row\">{}</th><td class=\"n\">{images}</td>",
                escape(class)
            );
            for score in scores {
                let top1 = score.top1.map_or("–".into(), percent);
                let taken = score.taken_for.as_ref().map_or(String::new(), |other| {
                    format!("{} ({})", escape(other), score.taken)
                });
                let _ = write!(page, "<td class=\"n\">{top1}</td><td>{taken}</td>");
            }
            page.push_str("</tr>\n");
        }
        page.push_str("</table></div>\n");
    }
}

fn percent(fraction: f64) -> String {
    format!("{:.1} %", 100.0 * fraction)
}

fn section(page: &mut String, title: &str) {
    let _ = writeln!(page, "<h2>{}</h2>", escape(title));
}

fn image(page: &mut String, picture: &Picture) {
    let class = escape(&picture.class);
    let _ = writeln!(
        page,
        "<div class=\"image\"><h3>{class} <span class=\"soft\">image {}, <code>{}</code></span></h3>\n<div class=\"looks\">",
        picture.index,
        escape(&picture.origin)
    );
    let mut show = |file: &PictureFile, caption: &str| {
        let _ = writeln!(
            page,
            "<figure><img alt=\"{0}\" src=\"data:image/png;base64,{1}\"><figcaption>{0}</figcaption></figure>",
            escape(caption),
            base64(&file.bytes)
        );
    };
    show(&picture.input, &format!("the image, {}", picture.class));
    for view in &picture.views {
        let sure = percent(view.confidence);
        let name = &view.network;
        show(
            &view.for_predicted,
            &format!("{name} says {}, {sure}", view.predicted),
        );
        if let Some(file) = &view.for_class {
            let own = percent(view.probability);
            show(file, &format!("{name} on {}, {own}", picture.class));
        }
    }
    page.push_str("</div></div>\n");
}

/// Bytes in base64 (RFC 4648), with padding, as data URIs hold them.
pub fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let at = |k: usize| u32::from(three.get(k).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for k in 0..4 {
            if k <= three.len() {
                text.push(char::from(LETTERS[(bits >> (18 - 6 * k) & 63) as usize]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
