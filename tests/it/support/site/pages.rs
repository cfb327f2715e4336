//! The pages of the site, as small as they can be and still be one.

use std::fmt::Write as _;

use super::{Asked, Change};

/// What is sold: name, category, price.
const GOODS: [(&str, &str, &str); 5] = [
    ("Green tea", "Tea", "3.50"),
    ("Black tea", "Tea", "2.80"),
    ("Iced tea", "Tea", "1.20"),
    ("Basmati", "Rice", "4.10"),
    ("Jasmine", "Rice", "3.90"),
];
/// Orders of one page of their table, and pages of it.
pub const ORDERS: (usize, usize) = (4, 3);

pub const NOT_FOUND: &str = "<!doctype html><title>Not found</title><h1>There is no such page</h1>";

pub const SLOW: &str = r#"<!doctype html><title>Slow</title><h1>A slow page</h1>
<img src="/slow/never" alt="A picture that never comes" width=20 height=20>
<img src="/slow/missing.png" alt="A picture that is missing" width=20 height=20>
<script src="/slow/broken.js"></script>
<p id=words>Please wait</p><button id=go disabled>Go on</button><output id=gone aria-label="Outcome"></output>
<script>
fetch("/slow/words").then(r => r.text()).then(text => {
  document.getElementById("words").textContent = text;
  document.getElementById("go").disabled = false;
});
document.getElementById("go").onclick = () => { document.getElementById("gone").textContent = "Arrived after the wait"; };
</script>"#;

/// Shows what is typed for when the typing has stopped, and the server has answered.
const FILTER: &str = r#"<!doctype html><title>Filter</title><h1>All goods</h1>
<label>Filter <input type=search id=q></label>
<table aria-label="Goods"><thead><tr><th>Article</th><th>Price</th></tr></thead><tbody id=rows>ROWS</tbody></table>
<script>
let timer;
document.getElementById("q").oninput = event => {
  clearTimeout(timer);
  timer = setTimeout(async () => {
    const answer = await fetch("/filter/rows?q=" + encodeURIComponent(event.target.value));
    document.getElementById("rows").innerHTML = await answer.text();
  }, 300);
};
</script>"#;

/// The rows of goods whose category this is; all, where it is none.
pub fn filtered(category: &str) -> String {
    let goods = GOODS.iter().filter(|(_, own, _)| category.is_empty() || own.eq_ignore_ascii_case(category));
    goods.fold(String::new(), |mut rows, (name, _, price)| {
        let _ = write!(rows, "<tr><td>{name}</td><td>{price}</td></tr>");
        rows
    })
}

/// The page of a path; `None`: there is none.
pub fn page(method: &str, asked: &Asked, change: Change, other: &str) -> Option<String> {
    let field = |name: &str| asked.fields.get(name).map_or("", String::as_str);
    Some(match (method, asked.path.as_str()) {
        (_, "/") => HOME.to_owned(),
        ("GET", "/login") => login(""),
        (_, "/account") => ACCOUNT.to_owned(),
        (_, "/filter") => FILTER.replace("ROWS", &filtered("")),
        (_, "/search") => search(field("q")),
        (_, "/orders") => orders(field("page").parse().unwrap_or(1)),
        ("GET", "/order") => order(asked, &[]),
        ("POST", "/order") => ordered(asked),
        (_, "/prices") => prices(change),
        (_, "/prices/list") => price_list(field("category"), change),
        (_, "/dialogs") => DIALOGS.to_owned(),
        (_, "/downloads") => DOWNLOADS.to_owned(),
        ("POST", "/upload") => {
            let (name, content) = asked.upload.clone()?;
            let length = content.len();
            framed("Uploaded", &format!("<p>Got {name} with {length} bytes</p>"))
        }
        (_, "/upload") => UPLOAD.to_owned(),
        (_, "/frames") => FRAMES.replace("OTHER", other),
        (_, "/frames/inner") => inner(field("code")),
        (_, "/shadow") => SHADOW.to_owned(),
        (_, "/canvas") => CANVAS.to_owned(),
        _ => return None,
    })
}

/// A page of this title, which is its heading, too.
fn framed(title: &str, body: &str) -> String {
    format!("<!doctype html><html lang=en><title>{title}</title><main><h1>{title}</h1>{body}</main></html>")
}

const HOME: &str = r#"<!doctype html><html lang=en><title>The shop</title><h1>The shop</h1>
<nav><a href="/login">Sign in</a> <a href="/search">Search</a> <a href="/orders">Orders</a> <a href="/prices">Prices</a></nav>"#;

pub fn login(error: &str) -> String {
    let form = r#"<form method=post action="/login">
<label>E-mail <input name=email type=email></label>
<label>Password <input name=password type=password></label>
<button>Sign in</button></form>"#;
    framed("Sign in", &format!("{error}{form}"))
}

const ACCOUNT: &str = r#"<!doctype html><html lang=en><title>Your account</title><main><h1>Your account</h1>
<p>Signed in as Ada</p><dl><dt>Balance</dt><dd><output aria-label="Balance">12,50 €</output></dd></dl></main></html>"#;

fn search(asked: &str) -> String {
    let mut body = format!(
        r#"<form role=search><label>Search the shop <input name=q type=search value="{asked}"></label>
<button>Search</button></form>"#
    );
    if !asked.is_empty() {
        let found = GOODS.iter().filter(|(name, ..)| name.contains(asked));
        let items = found.map(|(name, _, price)| {
            format!(
                r#"<li><a href="/goods/{}">{name}</a> <span>{price} €</span></li>"#,
                name.replace(' ', "-")
            )
        });
        let items: Vec<String> = items.collect();
        let _ = write!(
            body,
            r#"<h2>{} results</h2><ul aria-label="Results">{}</ul>"#,
            items.len(),
            items.concat()
        );
    }
    framed("Search", &body)
}

fn orders(page: usize) -> String {
    let (rows, pages) = ORDERS;
    let row = |at: usize| {
        let number = (page - 1) * rows + at;
        format!(
            "<tr><td>A-{number}</td><td>Customer {number}</td><td>{},{:02} €</td></tr>",
            1_000 + number,
            number
        )
    };
    let rows: String = (1..=rows).map(row).collect();
    let next = if page < pages {
        format!(r#"<a href="/orders?page={}">Next page</a>"#, page + 1)
    } else {
        "<a aria-disabled=true role=link>Next page</a>".to_owned()
    };
    framed(
        "Orders",
        &format!(
            r#"<table aria-label="Orders"><thead><tr><th>Order</th><th>Customer</th><th>Total</th></tr></thead>
<tbody>{rows}</tbody></table><p>Page {page} of {pages}</p>{next}"#
        ),
    )
}

fn order(asked: &Asked, wrong: &[&str]) -> String {
    let value = |name: &str| asked.fields.get(name).map_or("", String::as_str);
    let wrong: Vec<String> = wrong.iter().map(|wrong| format!("<p role=alert>{wrong}</p>")).collect();
    let wrong = wrong.concat();
    framed(
        "New order",
        &format!(
            r#"{wrong}<form method=post novalidate>
<label>Name <input name=name value="{}"></label>
<label>Quantity <input name=quantity type=number value="{}"></label>
<label>Delivery <select name=delivery><option value=post>By post</option><option value=van>By van</option></select></label>
<label><input name=terms type=checkbox> I accept the terms</label>
<button>Order</button></form>"#,
            value("name"),
            value("quantity")
        ),
    )
}

fn ordered(asked: &Asked) -> String {
    let value = |name: &str| asked.fields.get(name).map_or("", String::as_str);
    let mut wrong = Vec::new();
    if value("name").is_empty() {
        wrong.push("A name is needed");
    }
    if value("quantity").parse::<u32>().map_or(true, |quantity| quantity == 0) {
        wrong.push("The quantity must be at least 1");
    }
    if value("terms").is_empty() {
        wrong.push("The terms must be accepted");
    }
    if !wrong.is_empty() {
        return order(asked, &wrong);
    }
    let body = format!(
        r#"<p>{} of it for {}, {}</p><p>Your number is <output aria-label="Order number">N-77</output></p>"#,
        value("quantity"),
        value("name"),
        if value("delivery") == "van" { "by van" } else { "by post" },
    );
    framed("Thank you", &body)
}

fn prices(change: Change) -> String {
    let categories = "<option>Rice</option><option>Tea</option>";
    if change == Change::Moved {
        let body = format!(
            r#"<section aria-label="Looking"><div><p>All prices are in euro.</p><div class=grid>
<button type=submit form=f1 id=b9>Show prices</button></div></div><form id=f1 action="/prices/list"><fieldset>
<label for=c7>Category</label><div><select id=c7 name=category>{categories}</select></div></fieldset></form></section>"#
        );
        return framed("Prices", &body);
    }
    let button = if change == Change::Renamed { "List them" } else { "Show prices" };
    let body = format!(
        r#"<form action="/prices/list" id=choose><label>Category <select name=category id=category>{categories}</select></label>
<button id=show>{button}</button></form>"#
    );
    framed("Prices", &body)
}

fn price_list(category: &str, change: Change) -> String {
    let (moved, column) =
        (change == Change::Moved, if change == Change::Meaning { "Weight" } else { "Price" });
    if change == Change::Gone {
        return framed("Prices", "<p>Prices are told on request.</p>");
    }
    let goods = GOODS.iter().filter(|(_, of, _)| *of == category);
    let row = |(name, of, price): &(&str, &str, &str)| {
        if moved {
            format!("<tr><td>{of}</td><td>{price} €</td><td>{name}</td></tr>")
        } else {
            format!("<tr><td>{name}</td><td>{price}{}</td></tr>", if column == "Price" { " €" } else { "" })
        }
    };
    let rows: String = goods.map(row).collect();
    let body = if moved {
        format!(
            r#"<div><div id=x5><table aria-label="Price list"><tr><th>Kind</th><th>Price</th><th>Article</th></tr>{rows}</table></div></div>"#
        )
    } else {
        format!(
            r#"<table aria-label="Price list" id=list><thead><tr><th>Article</th><th>{column}</th></tr></thead><tbody>{rows}</tbody></table>"#
        )
    };
    framed("Prices", &body)
}

const DIALOGS: &str = r#"<!doctype html><html lang=en><title>Dialogs</title><main><h1>Dialogs</h1>
<output id=said aria-label="Said">Nothing</output>
<button onclick="alert('Hello'); said('Greeted')">Greet</button>
<button onclick="said(confirm('Delete the draft?') ? 'Deleted' : 'Kept')">Delete</button>
<button onclick="said('Called ' + prompt('What is it called?', 'Draft'))">Rename</button>
<script>function said(text) { document.getElementById("said").textContent = text; }</script></main></html>"#;

const DOWNLOADS: &str = r#"<!doctype html><html lang=en><title>Downloads</title><main><h1>Downloads</h1>
<a href="/downloads/report.csv">Report</a></main></html>"#;

const UPLOAD: &str = r#"<!doctype html><html lang=en><title>Upload</title><main><h1>Upload</h1>
<form method=post enctype="multipart/form-data"><label>File <input name=file type=file></label><button>Send</button></form>
</main></html>"#;

const FRAMES: &str = r#"<!doctype html><html lang=en><title>Frames</title><main><h1>Frames</h1>
<iframe title="Ours" src="/frames/inner?code=17"></iframe>
<iframe title="Theirs" src="OTHER/frames/inner?code=42"></iframe></main></html>"#;

fn inner(code: &str) -> String {
    format!(
        r#"<!doctype html><title>Inner</title><button onclick="document.getElementById('code').textContent = 'Shown: {code}'">Show {code}</button>
<output id=code aria-label="Code {code}"></output>"#
    )
}

const SHADOW: &str = r#"<!doctype html><html lang=en><title>Shadow</title><main><h1>Shadow</h1><x-counter></x-counter></main>
<script>
customElements.define("x-counter", class extends HTMLElement {
  connectedCallback() {
    const root = this.attachShadow({ mode: "open" });
    root.innerHTML = '<label>Step <input type=number value=1></label><button>Count</button><p>Count: <output aria-label="Count">0</output></p>';
    let count = 0;
    root.querySelector("button").onclick = () => {
      count += Number(root.querySelector("input").value);
      root.querySelector("output").textContent = count;
    };
  }
});
</script></html>"#;

const CANVAS: &str = r##"<!doctype html><html lang=en><title>Canvas</title><main><h1>Canvas</h1>
<canvas id=c width=200 height=80 role=img aria-label="Chart"></canvas></main>
<script>
const g = document.getElementById("c").getContext("2d");
g.fillStyle = "#c00"; g.fillRect(0, 0, 200, 80); g.fillStyle = "#fff"; g.font = "24px sans-serif"; g.fillText("42 %", 20, 45);
</script></html>"##;
