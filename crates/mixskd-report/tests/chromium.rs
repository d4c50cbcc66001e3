//! Whether the page does in a real browser what it should: no request, nothing that sticks out, no cut letter, every picture there.
//! Needs Chromium, so it runs only when asked to, and says so where there is none:
//! `MIXSKD_CHROMIUM_TESTS=1 MIXSKD_CHROMIUM=/path/to/chromium cargo test -p mixskd-report --test chromium -- --nocapture`.
//! Screenshots are left in `MIXSKD_CHROMIUM_OUT`, where that names a folder.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::env;
use std::io::Read as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mixskd_report::{REPORT_HTML, write_page_of};

/// Loads the page in a frame of a phone's width and of a desktop's, and says what it finds there.
const HARNESS: &str = r#"<!doctype html><meta charset="utf-8"><body><script>
const look = (width) => new Promise((done) => {
  const frame = document.createElement("iframe");
  frame.style = `width:${width}px;height:900px;border:0`;
  frame.onload = () => {
    const page = frame.contentDocument;
    const cut = [...page.querySelectorAll("svg text")].filter((text) => {
      const a = text.getBoundingClientRect(), b = text.ownerSVGElement.getBoundingClientRect();
      return a.left < b.left - 1 || a.right > b.right + 1 || a.top < b.top - 1 || a.bottom > b.bottom + 1;
    });
    done({
      width: page.documentElement.scrollWidth,
      scripts: page.scripts.length,
      sections: [...page.querySelectorAll("h2")].map((h) => h.textContent),
      images: page.images.length,
      broken: [...page.images].filter((i) => !i.complete || i.naturalWidth === 0 || !i.alt).length,
      cut: cut.map((text) => text.textContent),
      smallest: Math.min(...[...page.querySelectorAll("svg text")].map((t) =>
        parseFloat(page.defaultView.getComputedStyle(t).fontSize) * t.getCTM().a || 99)),
    });
  };
  frame.src = "PAGE";
  document.body.append(frame);
});
(async () => {
  const found = { phone: await look(390), desktop: await look(1280) };
  document.body.innerHTML = "<pre id=found></pre>";
  document.getElementById("found").textContent = JSON.stringify(found);
})();
</script>"#;

/// A proxy that takes every request and answers none, and counts them.
struct Nowhere {
    address: String,
    requests: Arc<AtomicUsize>,
}

impl Nowhere {
    fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let requests = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&requests);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut head = [0; 512];
                let got = stream.read(&mut head).unwrap_or(0);
                let head = String::from_utf8_lossy(&head[..got]).into_owned();
                // What the browser asks on its own account is not the page's.
                if !head.contains("google") && got > 0 {
                    eprintln!("asked for: {}", head.lines().next().unwrap_or(""));
                    count.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        Self { address, requests }
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

struct Browser {
    program: String,
    nowhere: Nowhere,
}

impl Browser {
    /// The browser, where the test was asked for and there is one.
    fn find() -> Option<Self> {
        env::var_os("MIXSKD_CHROMIUM_TESTS")?;
        let named = env::var("MIXSKD_CHROMIUM").ok();
        let usual = ["chromium", "chromium-browser", "google-chrome"].map(String::from);
        let runs = |program: &String| {
            let asked = Command::new(program).arg("--version").output();
            asked.is_ok_and(|output| output.status.success())
        };
        let Some(program) = named.into_iter().chain(usual).find(runs) else {
            eprintln!("SKIPPED: there is no Chromium; name one with MIXSKD_CHROMIUM");
            return None;
        };
        let nowhere = Nowhere::open();
        Some(Self { program, nowhere })
    }

    fn run(&self, arguments: &[String], page: &Path) -> String {
        let profile = tempfile::tempdir().unwrap();
        let output = Command::new(&self.program)
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--disable-default-apps",
                "--hide-scrollbars",
                "--allow-file-access-from-files",
                "--virtual-time-budget=10000",
                "--proxy-bypass-list=<-loopback>",
            ])
            .arg(format!("--proxy-server=http://{}", self.nowhere.address))
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .args(arguments)
            .arg(format!("file://{}", page.display()))
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// What the harness finds of `page`.
    fn look(&self, page: &Path) -> serde_json::Value {
        let harness = page.with_file_name("harness.html");
        let name = page.file_name().unwrap().to_string_lossy();
        std::fs::write(&harness, HARNESS.replace("PAGE", &name)).unwrap();
        let dom = self.run(&["--dump-dom".into()], &harness);
        let found = dom.split_once("<pre id=\"found\">").map(|(_, rest)| rest);
        let found = found.and_then(|rest| rest.split_once("</pre>"));
        let (json, _) = found.unwrap_or_else(|| panic!("the harness found nothing: {dom}"));
        let json = json
            .replace("&amp;", "&")
            .replace("&lt;", "<")
            .replace("&gt;", ">");
        serde_json::from_str(&json).unwrap()
    }

    fn screenshot(&self, page: &Path, name: &str, size: (u32, u32)) {
        let folder = env::var_os("MIXSKD_CHROMIUM_OUT").map(PathBuf::from);
        let picture = folder
            .unwrap_or_else(|| page.parent().unwrap().to_path_buf())
            .join(name);
        let arguments = [
            format!("--screenshot={}", picture.display()),
            format!("--window-size={},{}", size.0, size.1),
        ];
        self.run(&arguments, page);
        let drawn = image::open(&picture).unwrap().to_rgb8();
        assert_eq!(drawn.dimensions(), size);
        // Not one colour, which a page that failed to load would be.
        let first = *drawn.get_pixel(0, 0);
        let others = drawn.pixels().filter(|pixel| **pixel != first).count();
        assert!(others > 10_000, "{name}: {others} pixels drawn");
    }
}

fn check(found: &serde_json::Value, sections: &[&str], images: usize) {
    for (device, width) in [("phone", 390), ("desktop", 1280)] {
        let found = &found[device];
        assert_eq!(found["width"], width, "{device}: the page scrolls sideways");
        assert_eq!(found["scripts"], 0);
        assert_eq!(found["images"], images, "{device}");
        assert_eq!(found["broken"], 0, "{device}");
        assert_eq!(found["cut"], serde_json::json!([]), "{device}");
        let smallest = found["smallest"].as_f64().unwrap();
        assert!(smallest > 8.0, "{device}: letters of {smallest} pixels");
        let told: Vec<_> = found["sections"].as_array().unwrap().iter().collect();
        for section in sections {
            assert!(
                told.iter().any(|title| *title == section),
                "{section}: {told:?}"
            );
        }
    }
}

#[test]
fn the_page_is_whole_in_a_browser() {
    let Some(browser) = Browser::find() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let dirs = ["mixskd", "mixup"].map(|method| {
        let dir = folder.path().join(method);
        let method = format!("method.name={method}");
        support::train(&dir, &[&method, "run.epochs=2"], true);
        dir
    });
    let own = dirs[0].join(REPORT_HTML);
    let sections = [
        "Accuracy",
        "Losses",
        "Learning rate and speed",
        "What is taken for what",
        "The worst-classified held-out images",
        "Training images as the network sees them",
        "Command, version, seeds and machine",
        "Configuration",
    ];
    check(&browser.look(&own), &sections, 48);
    browser.screenshot(&own, "run-desktop.png", (1280, 5200));
    browser.screenshot(&own, "run-phone.png", (390, 5200));

    let both = folder.path().join("both.html");
    write_page_of(&dirs, &both).unwrap();
    let sections = ["What mixup takes for what", "Configuration of mixskd"];
    check(&browser.look(&both), &sections, 0);
    browser.screenshot(&both, "both-desktop.png", (1280, 5200));
    assert_eq!(browser.nowhere.requests(), 0);

    // That a request would have been seen, and something too wide, too.
    let bad = folder.path().join("bad.html");
    let image = "<img alt=x src=\"http://example.invalid/x.png\"><p style=\"width:500px\">wide</p>";
    std::fs::write(&bad, format!("<!doctype html>{image}")).unwrap();
    let found = browser.look(&bad);
    assert_eq!(found["phone"]["broken"], 1);
    assert!(found["phone"]["width"].as_u64() > Some(390));
    assert!(browser.nowhere.requests() > 0);
}
