//! The document as a page to read: everything in it, made on the daemon's side. It needs no script, no other file and no
//! network, so it works wherever the daemon does.

use std::fmt::Write as _;

use serde_json::{Map, Value};

const HEAD: &str = r#"<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>matins API</title>
<style>
:root { color-scheme: light dark; --line: #8884; --soft: #8882; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h2 { margin-top: 3rem; border-bottom: 1px solid var(--line); }
h3 { margin-top: 2.5rem; font-weight: 600; }
code, pre { font-family: ui-monospace, monospace; font-size: 13px; }
pre { background: var(--soft); padding: .7rem; overflow-x: auto; border-radius: 4px; }
table { border-collapse: collapse; width: 100%; }
td, th { border-top: 1px solid var(--line); padding: .25rem .5rem .25rem 0; text-align: left; vertical-align: top; }
.method { display: inline-block; min-width: 3.5em; text-transform: uppercase; font-weight: 700; }
nav ul { columns: 2; padding-left: 1rem; list-style: none; }
:target { background: var(--soft); }
</style>
</head>
<body>
"#;

/// The page of a document.
pub(super) fn page(document: &Value) -> String {
    let mut page = HEAD.to_owned();
    let info = &document["info"];
    line(&mut page, "h1", &format!("{} {}", text(&info["title"]), text(&info["version"])));
    line(&mut page, "p", text(&info["description"]));
    page.push_str("<p>For programs: <a href=\"openapi.json\">openapi.json</a>, OpenAPI 3.1.</p>\n");
    authentication(&mut page, document);
    for tag in items(&document["tags"]) {
        chapter(&mut page, document, text(&tag["name"]), text(&tag["description"]));
    }
    heading(&mut page, "webhooks", "webhooks");
    line(&mut page, "p", "Messages that the daemon sends; the receiver answers them.");
    for (kind, item) in fields(&document["webhooks"]) {
        operation(&mut page, document, kind, "post", &item["post"]);
    }
    heading(&mut page, "schemas", "schemas");
    for (name, schema) in fields(&document["components"]["schemas"]) {
        let _ = writeln!(page, "<h3 id=\"schema-{0}\">{0}</h3>", escaped(name));
        described(&mut page, schema);
        shape(&mut page, schema);
    }
    page.push_str("</body>\n</html>\n");
    page
}

fn authentication(page: &mut String, document: &Value) {
    heading(page, "authentication", "authentication");
    page.push_str("<table>\n");
    for (name, scheme) in fields(&document["components"]["securitySchemes"]) {
        row(page, &[&escaped(name), &prose(text(&scheme["description"]))]);
    }
    page.push_str("</table>\n");
}

/// The operations of a tag.
fn chapter(page: &mut String, document: &Value, tag: &str, about: &str) {
    let all = fields(&document["paths"]).flat_map(|(path, item)| {
        fields(item).map(move |(method, operation)| (path, method.as_str(), operation))
    });
    let own: Vec<_> = all.filter(|(.., o)| items(&o["tags"]).any(|t| t == tag)).collect();
    if own.is_empty() {
        return;
    }
    heading(page, tag, tag);
    line(page, "p", about);
    page.push_str("<nav><ul>\n");
    for (path, method, of) in &own {
        let id = escaped(text(&of["operationId"]));
        let _ = writeln!(
            page,
            "<li><a href=\"#{id}\"><code>{} {}</code></a></li>",
            escaped(method),
            escaped(path)
        );
    }
    page.push_str("</ul></nav>\n");
    for (path, method, of) in own {
        operation(page, document, path, method, of);
    }
}

fn operation(page: &mut String, document: &Value, path: &str, method: &str, of: &Value) {
    let id = escaped(text(&of["operationId"]));
    let (method, path) = (escaped(method), escaped(path));
    let _ = writeln!(page, "<h3 id=\"{id}\"><code><span class=\"method\">{method}</span> {path}</code></h3>");
    line(page, "p", text(&of["summary"]));
    described(page, of);
    if items(&of["parameters"]).next().is_some() {
        page.push_str("<table>\n");
        for parameter in items(&of["parameters"]) {
            let mut place = escaped(text(&parameter["in"]));
            if parameter["required"] == true {
                place.push_str(", required");
            }
            let name = format!("<code>{}</code>", escaped(text(&parameter["name"])));
            let about = prose(text(&parameter["description"]));
            row(page, &[&name, &place, &kind(&parameter["schema"]), &about]);
        }
        page.push_str("</table>\n");
    }
    contents(page, "Body", &of["requestBody"]);
    page.push_str("<table>\n");
    for (status, response) in fields(&of["responses"]) {
        let response = resolved(document, response);
        let body: Vec<String> = fields(&response["content"]).map(|(_, c)| kind(&c["schema"])).collect();
        row(page, &[&escaped(status), &prose(text(&response["description"])), &body.join(", ")]);
    }
    page.push_str("</table>\n");
    for (status, response) in fields(&of["responses"]).filter(|(status, _)| status.starts_with('2')) {
        for (_, content) in fields(&response["content"]) {
            example(page, &format!("Answer {status}"), content);
        }
    }
}

/// The bodies that a request may have, with their examples.
fn contents(page: &mut String, title: &str, body: &Value) {
    for (media, content) in fields(&body["content"]) {
        let _ =
            writeln!(page, "<p>{title}: <code>{}</code> {}</p>", escaped(media), kind(&content["schema"]));
        example(page, "For example", content);
    }
}

fn example(page: &mut String, title: &str, content: &Value) {
    let text = match content.get("example") {
        None => return,
        Some(Value::String(text)) => text.clone(),
        Some(value) => serde_json::to_string_pretty(value).unwrap_or_default(),
    };
    let _ = writeln!(
        page,
        "<details><summary>{}</summary><pre>{}</pre></details>",
        escaped(title),
        escaped(&text)
    );
}

/// The fields of a schema, or what it is where it has none.
fn shape(page: &mut String, schema: &Value) {
    for part in items(&schema["allOf"]) {
        if part.get("$ref").is_some() {
            let _ = writeln!(page, "<p>Everything of {}, and:</p>", kind(part));
        }
        shape(page, part);
    }
    if schema.get("properties").is_none() {
        if schema.get("allOf").is_none() && schema.get("$ref").is_none() {
            let _ = writeln!(page, "<p>{}</p>", kind(schema));
        }
        return;
    }
    page.push_str("<table>\n");
    for (name, field) in fields(&schema["properties"]) {
        let name = format!("<code>{}</code>", escaped(name));
        row(page, &[&name, &kind(field), &prose(text(&field["description"]))]);
    }
    page.push_str("</table>\n");
}

/// What a schema is, in a few words, with a link to a named one.
fn kind(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|to| to.rsplit('/').next()) {
        let name = escaped(name);
        return format!("<a href=\"#schema-{name}\">{name}</a>");
    }
    for choice in ["oneOf", "anyOf", "allOf"] {
        if let Some(list) = schema[choice].as_array() {
            return list.iter().map(kind).collect::<Vec<_>>().join(" or ");
        }
    }
    if let Some(words) = schema["enum"].as_array() {
        let words = words.iter().map(|w| format!("<code>{}</code>", escaped(&bare(w))));
        return words.collect::<Vec<_>>().join(", ");
    }
    let word = match &schema["type"] {
        Value::String(word) => word.clone(),
        Value::Array(words) => words.iter().map(bare).collect::<Vec<_>>().join(" or "),
        _ if schema.get("const").is_some() => bare(&schema["const"]),
        _ => "any value".to_owned(),
    };
    let format = schema["format"].as_str().map(|f| format!(" ({})", escaped(f))).unwrap_or_default();
    let of = schema.get("items").map(|items| format!(" of {}", kind(items))).unwrap_or_default();
    format!("{}{format}{of}", escaped(&word))
}

fn resolved<'d>(document: &'d Value, value: &'d Value) -> &'d Value {
    let to = value["$ref"].as_str().and_then(|to| to.strip_prefix('#'));
    to.and_then(|to| document.pointer(to)).unwrap_or(value)
}

fn described(page: &mut String, of: &Value) {
    if let Some(about) = of["description"].as_str() {
        let _ = writeln!(page, "<p>{}</p>", prose(about));
    }
}

fn heading(page: &mut String, id: &str, title: &str) {
    let _ = writeln!(page, "<h2 id=\"{}\">{}</h2>", escaped(id), escaped(title));
}

fn line(page: &mut String, element: &str, words: &str) {
    let _ = writeln!(page, "<{element}>{}</{element}>", prose(words));
}

/// A row of cells that are HTML already.
fn row(page: &mut String, cells: &[&str]) {
    page.push_str("<tr>");
    for cell in cells {
        let _ = write!(page, "<td>{cell}</td>");
    }
    page.push_str("</tr>\n");
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn bare(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn fields(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

/// Text as HTML; what stands between backticks as code.
fn prose(words: &str) -> String {
    let part = |(at, part): (usize, &str)| {
        let part = escaped(part);
        if at % 2 == 1 { format!("<code>{part}</code>") } else { part }
    };
    words.split('`').enumerate().map(part).collect()
}

fn escaped(words: &str) -> String {
    let mut safe = String::with_capacity(words.len());
    for c in words.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_written_is_no_markup() {
        let document = json!({
            "info": { "title": "<b>", "version": "1" },
            "tags": [{ "name": "a", "description": "x & `<i>`" }],
            "paths": { "/<p>": { "get": {
                "operationId": "o", "tags": ["a"], "summary": "s",
                "responses": { "200": { "description": "\"d\"", "content": { "x": { "example": "</pre><script>" } } } },
            } } },
        });
        let page = page(&document);
        assert!(page.contains("<code>&lt;i&gt;</code>") && page.contains("&quot;d&quot;"), "{page}");
        assert!(!page.contains("<script") && !page.contains("<b>") && !page.contains("/<p>"), "{page}");
    }

    #[test]
    fn every_link_leads_to_a_place_of_the_page() {
        let page = page(&super::super::value());
        for (at, _) in page.match_indices("href=\"#") {
            let rest = &page[at + 7..];
            let to = &rest[..rest.find('"').unwrap()];
            assert!(page.contains(&format!("id=\"{to}\"")), "#{to}");
        }
        for external in ["href=\"http", "<script", "src=\"", "@import", "url("] {
            assert!(!page.contains(external), "{external}");
        }
    }
}
