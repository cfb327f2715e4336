//! What is done on each page of the site: the calls of a model, and what the run must end with.

use serde_json::{Value, json};

use crate::support::model_server::Asked;
use crate::support::site::{PASSWORD, Site};
use crate::support::{Home, ModelServer, Reply};

/// One errand on the site. An agent of its name does it.
pub struct Case {
    pub name: &'static str,
    /// What the model says, turn by turn; the last ends the run.
    pub script: Vec<Reply>,
    pub result: Value,
}

/// What every agent here has beside its own.
const EXECUTOR: &str = "  tools: [browser]\n  hosts: [127.0.0.1]\n";

/// A home with an agent for each errand; `executor` and `settings` are further keys.
pub fn home(server: &ModelServer, site: &Site, executor: &str, more: &str) -> Home {
    let home = Home::new();
    home.settings(&server.settings());
    agents(&home, site, executor, more);
    home
}

/// Writes the agents of the errands.
pub fn agents(home: &Home, site: &Site, executor: &str, more: &str) {
    let file = home.write("shop.key", PASSWORD);
    for case in all(site) {
        let schema = schema_of(&case.result);
        let secret = format!("secrets: {{ SHOP_PASSWORD: {{ file: {} }} }}\n", file.display());
        let more = format!("result_schema: {schema}\n{secret}{more}");
        home.llm_agent(case.name, &format!("{EXECUTOR}{executor}"), &more);
    }
}

/// A schema that this value fits, with the types of all its parts.
pub fn schema_of(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let properties: serde_json::Map<String, Value> =
                fields.iter().map(|(name, field)| (name.clone(), schema_of(field))).collect();
            json!({"type": "object", "required": fields.keys().collect::<Vec<_>>(), "properties": properties})
        }
        Value::Array(items) => json!({"type": "array", "minItems": 1, "items": schema_of(&items[0])}),
        Value::Number(_) => json!({"type": "number"}),
        Value::Bool(_) => json!({"type": "boolean"}),
        _ => json!({"type": "string"}),
    }
}

fn call(tool: &str, arguments: &Value) -> Reply {
    Reply::call(&format!("browser_{tool}"), arguments)
}

fn click(what: &str) -> Reply {
    call("click", &json!({"ref": what}))
}

fn choose(what: &str, option: &str) -> Reply {
    call("select", &json!({"ref": format!("combobox {what:?}"), "options": [option]}))
}

/// Reads what the result says, by its schema, and ends with it.
fn read(result: &Value, from: &Value) -> [Reply; 2] {
    [call("extract", &json!({"schema": schema_of(result), "from": from})), Reply::finish(result)]
}

/// The errand whose model goes to `path`, does this and reads its result.
fn case(name: &'static str, at: &str, deeds: Vec<Reply>, result: Value, from: &Value) -> Case {
    let mut script = vec![call("navigate", &json!({"url": at}))];
    script.extend(deeds);
    script.extend(read(&result, from));
    Case { name, script, result }
}

fn output(name: &str) -> Value {
    json!({"text": {"ref": format!("status {name:?}")}})
}

/// All errands.
pub fn all(site: &Site) -> Vec<Case> {
    let at = |path: &str| format!("{}{path}", site.url);
    let mut cases = of_forms_and_lists(&at);
    cases.extend(of_special_pages(&at));
    cases.push(prices(site));
    cases
}

fn of_forms_and_lists(at: &dyn Fn(&str) -> String) -> Vec<Case> {
    let good = |name: &str, price: f64| json!({"name": name, "price": price});
    vec![
        case(
            "login",
            &at("/login"),
            vec![
                call("type", &json!({"ref": "textbox \"E-mail\"", "text": "ada@shop.test"})),
                call("type", &json!({"ref": "textbox \"Password\"", "secret": "SHOP_PASSWORD"})),
                click("button \"Sign in\""),
            ],
            json!({"balance": 12.5}),
            &json!({"object": {"balance": output("Balance")}}),
        ),
        case(
            "search",
            &at("/search"),
            vec![
                call("type", &json!({"ref": "searchbox \"Search the shop\"", "text": "tea"})),
                click("button \"Search\""),
            ],
            json!({"goods": [good("Green tea", 3.5), good("Black tea", 2.8), good("Iced tea", 1.2)]}),
            &json!({"object": {"goods": {"items": {"ref": "list \"Results\"", "fields": {
                "name": {"role": "link"}, "price": {"role": "text"}}}}}}),
        ),
        // Nothing waits here: what was typed takes effect later, and is read then.
        case(
            "filter",
            &at("/filter"),
            vec![call("type", &json!({"ref": "searchbox \"Filter\"", "text": "tea"}))],
            json!({"goods": [good("Green tea", 3.5), good("Black tea", 2.8), good("Iced tea", 1.2)]}),
            &json!({"object": {"goods": {"rows": {
                "ref": "table \"Goods\"", "columns": {"name": "Article", "price": "Price"}}}}}),
        ),
        case(
            "orders",
            &at("/orders"),
            vec![],
            orders(),
            &json!({"object": {"orders": {"rows": {
            "ref": "table \"Orders\"", "columns": {"order": "Order", "total": "Total"},
            "next": {"ref": "link \"Next page\""}}}}}),
        ),
        case(
            "form",
            &at("/order"),
            vec![
                click("button \"Order\""),
                call("type", &json!({"ref": "textbox \"Name\"", "text": "Ada"})),
                call("type", &json!({"ref": "spinbutton \"Quantity\"", "text": "3"})),
                choose("Delivery", "By van"),
                click("checkbox \"I accept the terms\""),
                click("button \"Order\""),
            ],
            json!({"number": "N-77"}),
            &json!({"object": {"number": output("Order number")}}),
        ),
    ]
}

fn of_special_pages(at: &dyn Fn(&str) -> String) -> Vec<Case> {
    let title = json!({"page": "title"});
    vec![
        case(
            "slow",
            &at("/slow"),
            vec![call("wait_for", &json!({"text": "The slow words have come."})), click("button \"Go on\"")],
            json!({"outcome": "Arrived after the wait"}),
            &json!({"object": {"outcome": output("Outcome")}}),
        ),
        case(
            "dialogs",
            &at("/dialogs"),
            vec![
                click("button \"Greet\""),
                call("dialog", &json!({"accept": true})),
                click("button \"Delete\""),
                call("dialog", &json!({"accept": false})),
                click("button \"Rename\""),
                call("dialog", &json!({"accept": true, "text": "Plan"})),
            ],
            json!({"said": "Called Plan"}),
            &json!({"object": {"said": output("Said")}}),
        ),
        case(
            "download",
            &at("/downloads"),
            vec![call("download", &json!({"ref": "link \"Report\""}))],
            json!({"page": "Downloads"}),
            &json!({"object": {"page": title}}),
        ),
        case(
            "frames",
            &at("/frames"),
            vec![click("button \"Show 17\""), click("button \"Show 42\"")],
            json!({"ours": "Shown: 17", "theirs": "Shown: 42"}),
            &json!({"object": {"ours": output("Code 17"), "theirs": output("Code 42")}}),
        ),
        case(
            "shadow",
            &at("/shadow"),
            vec![
                call("type", &json!({"ref": "spinbutton \"Step\"", "text": "5"})),
                click("button \"Count\""),
                click("button \"Count\""),
            ],
            json!({"count": 10}),
            &json!({"object": {"count": output("Count")}}),
        ),
        case(
            "canvas",
            &at("/canvas"),
            vec![call("screenshot", &json!({"name": "chart", "ref": "image \"Chart\""}))],
            json!({"page": "Canvas"}),
            &json!({"object": {"page": title}}),
        ),
    ]
}

fn orders() -> Value {
    let order = |n: u32| json!({"order": format!("A-{n}"), "total": f64::from(100_000 + n * 101) / 100.0});
    json!({"orders": (1..=12).map(order).collect::<Vec<_>>()})
}

/// The errand whose pages [`crate::support::site::Change`] makes over.
pub fn prices(site: &Site) -> Case {
    let good = |name: &str, price: f64| json!({"name": name, "price": price});
    case(
        "prices",
        &format!("{}/prices", site.url),
        vec![choose("Category", "Tea"), click("button \"Show prices\"")],
        json!({"goods": [good("Green tea", 3.5), good("Black tea", 2.8), good("Iced tea", 1.2)]}),
        &json!({"object": {"goods": {"rows": {
            "ref": "table \"Price list\"", "columns": {"name": "Article", "price": "Price"}}}}}),
    )
}

/// Answers of a model that says this in every run, whichever asks: its turn is known by what was said before.
pub fn by_turn(script: Vec<Reply>) -> impl FnMut(&Asked) -> Reply + Send + 'static {
    move |asked| {
        let said = asked.body["messages"].as_array().map_or(&[][..], Vec::as_slice);
        let turn = said.iter().filter(|message| message["role"] == "assistant").count();
        script[turn].clone()
    }
}
