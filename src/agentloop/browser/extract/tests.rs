//! What is read from a page, and what is refused.

use serde_json::json;

use super::super::testing::page;
use super::*;

#[expect(clippy::needless_pass_by_value, reason = "the values are written where they are read")]
fn read(lines: &str, from: Value, schema: Value) -> Result<Value, String> {
    let from: Source = serde_json::from_value(from).unwrap();
    extract(&page(lines), &from, (!schema.is_null()).then_some(&schema))
}

const ORDERS: &str = r#"
table "Orders" [e1]
  row
    columnheader "Order"
    columnheader "Price"
    columnheader "Paid"
  row
    cell "A-1"
    cell "1.234 €"
    cell "true"
  row
    cell "A-2"
    cell "7,50 €"
    cell "false"
button "Next" [e90]
"#;

fn rows() -> Value {
    json!({"rows": {"ref": "e1", "columns": {"id": "Order", "price": "Price"}}})
}

fn priced(price: &Value) -> Value {
    json!({"type": "array", "items": {"$ref": "#/$defs/order"}, "$defs": {"order": {
        "type": "object", "properties": {"id": {"type": "string"}, "price": price}, "required": ["id", "price"]}}})
}

#[test]
fn rows_are_read_by_header_and_typed_by_the_schema() {
    assert_eq!(
        read(ORDERS, rows(), priced(&json!({"type": "number"}))),
        Ok(json!([{"id": "A-1", "price": 1234}, {"id": "A-2", "price": 7.5}])),
        "the second price says how the first is meant"
    );
    assert_eq!(
        read(ORDERS, rows(), Value::Null),
        Ok(json!([{"id": "A-1", "price": "1.234 €"}, {"id": "A-2", "price": "7,50 €"}])),
        "without a schema a text stays one"
    );
    let paid = json!({"rows": {"ref": "e1", "columns": {"paid": "Paid"}}});
    let schema = json!({"items": {"properties": {"paid": {"type": "boolean"}}}});
    assert_eq!(read(ORDERS, paid, schema), Ok(json!([{"paid": true}, {"paid": false}])));
}

#[test]
fn what_does_not_fit_is_an_error_with_its_place() {
    let number = || priced(&json!({"type": "number"}));
    let error = |lines: &str, schema| read(lines, rows(), schema).unwrap_err();
    assert!(
        error(&ORDERS.replace("\"Price\"", "\"Weight\""), number())
            .starts_with("no column is called \"Price\"")
    );
    assert_eq!(
        error(&ORDERS.replace("1.234 €", "on request"), number()),
        "/0/price: \"on request\" is no number"
    );
    assert!(
        error(&ORDERS.replace("7,50 €", "7 €"), number())
            .starts_with("/0/price: \"1.234 €\" may be two numbers")
    );
    assert_eq!(error(ORDERS, priced(&json!({"type": "integer"}))), "/1/price: \"7,50 €\" is no whole number");
    let bounded = priced(&json!({"type": "number", "maximum": 1000}));
    assert!(error(ORDERS, bounded).starts_with("/0/price: 1234 is greater than"));
    let within = |from| json!({"object": {"orders": from}});
    let schema = json!({"properties": {"orders": number()}});
    assert!(
        read(ORDERS, within(json!({"rows": {"ref": "e1", "columns": {"x": "X"}}})), schema)
            .unwrap_err()
            .starts_with("/orders: no column")
    );
    assert_eq!(
        read(ORDERS, json!({"text": {"ref": "e7000"}}), Value::Null).unwrap_err(),
        "e7000 is not on the page"
    );
    let nullable = priced(&json!({"anyOf": [{"type": "number"}, {"type": "null"}]}));
    assert_eq!(
        read(&ORDERS.replace("7,50 €", "–"), rows(), nullable).unwrap_err(),
        "/0/price: \"1.234 €\" may be two numbers, and no other number here says how '.' is meant"
    );
}

#[test]
fn nothing_is_null_where_the_schema_says_so() {
    let nullable = priced(&json!({"anyOf": [{"type": "number"}, {"type": "null"}]}));
    let empty = ORDERS.replace("1.234 €", "").replace("7,50 €", "–");
    assert_eq!(
        read(&empty, rows(), nullable),
        Ok(json!([{"id": "A-1", "price": null}, {"id": "A-2", "price": null}]))
    );
    assert!(read(&empty, rows(), priced(&json!({"type": "number"}))).is_err());
}

const SHOP: &str = r#"
main "Shop" [e1]
  heading "Our goods"
  list [e3]
    listitem
      link "Tea" #href=/goods/1
      text "3.50 €"
      list
        listitem
          link "Green" #href=/goods/1?green
    listitem
      link "Rice" #href=/goods/2
        text "Rice"
      text " "
      text "2.00 €"
      checkbox "In the cart" !checked
  textbox "Name" =Ada [e70]
  textbox "Password" #type=password =secret [e71]
"#;

fn items(fields: &Value) -> Value {
    json!({"items": {"ref": "e3", "fields": fields}})
}

#[test]
fn items_are_read_without_those_of_lists_in_them() {
    let fields = json!({"name": {"role": "link"}, "to": {"role": "link", "take": "href"}, "price": {"role": "text"},
                        "cart": {"role": "checkbox", "take": "value"}});
    let schema = json!({"items": {"properties": {"price": {"type": "number"}, "cart": {"type": "boolean"}}, "required": ["name"]}});
    assert_eq!(
        read(SHOP, items(&fields), schema),
        Ok(json!([{"name": "Tea", "to": "/goods/1", "price": 3.5},
                  {"name": "Rice", "to": "/goods/2", "price": 2, "cart": true}]))
    );
    assert_eq!(
        read(SHOP, json!({"items": {"ref": "e1", "role": "link", "fields": {"name": {}}}}), Value::Null),
        Ok(json!([{"name": "Tea"}, {"name": "Green"}, {"name": "Rice"}]))
    );
}

#[test]
fn a_field_that_is_missing_or_not_the_only_one_is_an_error() {
    let required = json!({"items": {"required": ["cart"]}});
    let cart = || items(&json!({"cart": {"role": "checkbox", "take": "value"}}));
    assert_eq!(read(SHOP, cart(), required).unwrap_err(), "/0/cart: it is not there");
    assert_eq!(
        read(SHOP, cart(), Value::Null).unwrap_err(),
        "/0/cart: it is not there",
        "nobody said that it may be"
    );
    let two = SHOP.replace("      checkbox", "      link \"More\"\n      checkbox");
    assert_eq!(
        read(&two, items(&json!({"name": {"role": "link"}})), Value::Null).unwrap_err(),
        "/1/name: it has 2 of link; say which by `name` or `number`"
    );
    let first = items(&json!({"name": {"role": "link", "number": 1}}));
    assert_eq!(read(&two, first, Value::Null), Ok(json!([{"name": "Tea"}, {"name": "Rice"}])));
    assert!(
        read(SHOP, items(&json!({"x": {"role": "link", "take": "alt"}})), Value::Null)
            .unwrap_err()
            .contains("no attribute `alt`")
    );
}

#[test]
fn single_things_are_read_and_passwords_are_not() {
    let from = json!({"object": {"name": {"value": {"ref": "e70"}}, "at": {"page": "url"}, "title": {"page": "title"},
        "to": {"attribute": {"ref": "e5", "name": "href"}}, "all": {"text": {"ref": "e3"}}}});
    let read = |from| read(SHOP, from, Value::Null);
    let tea = SHOP.lines().position(|line| line.contains("Tea")).unwrap();
    assert_eq!(
        read(serde_json::from_str(&from.to_string().replace("e5", &format!("e{tea}"))).unwrap()),
        Ok(
            json!({"name": "Ada", "at": "https://shop.test/orders/17?page=2", "title": "Shop", "to": "/goods/1",
                  "all": "3.50 € Rice 2.00 €"})
        )
    );
    assert!(read(json!({"value": {"ref": "e71"}})).unwrap_err().contains("password"));
    assert!(read(json!({"value": {"ref": "e3"}})).unwrap_err().contains("holds no value"));
    assert!(
        serde_json::from_value::<Source>(json!({"rows": {"ref": "e1", "columns": {}, "sort": 1}})).is_err()
    );
}

/// What is read over these pages, pressing what is said to be pressed.
fn over(pages: &[String], from: Value) -> Result<(Value, usize), String> {
    let from: Source = serde_json::from_value(from).unwrap();
    let (mut read, mut turn) = Pages::start(&page(&pages[0]), &from)?;
    let mut seen = 1;
    while turn != Turn::Last && seen < pages.len() {
        turn = read.more(&page(&pages[seen]))?;
        seen += 1;
    }
    Ok((read.value(None)?, seen))
}

#[test]
fn a_list_is_read_over_its_pages() {
    let next = json!({"object": {"orders": {"rows": {"ref": "e1", "columns": {"id": "Order"}, "next": {"ref": "e90"}}}}});
    let of = |ids: [&str; 2], next: &str| {
        ORDERS.replace("A-1", ids[0]).replace("A-2", ids[1]).replace("button \"Next\" [e90]", next)
    };
    let first = of(["A-1", "A-2"], "button \"Next\" [e90]");
    // Another page is another document: no reference is the same.
    let second = of(["A-3", "A-4"], "button \"Next\" [e91]").replace("[e1]", "[e61]");
    let empty = "heading \"Please wait\"".to_owned();
    let last = of(["A-5", "A-6"], "button \"Next\" !disabled [e92]").replace("[e1]", "[e62]");
    let ids = |read: &Value| {
        read["orders"]
            .as_array()
            .unwrap()
            .iter()
            .map(|o| o["id"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let (read, seen) =
        over(&[first.clone(), first.clone(), second.clone(), empty, last, second.clone()], next.clone())
            .unwrap();
    assert_eq!(
        (ids(&read), seen),
        (["A-1", "A-2", "A-3", "A-4", "A-5", "A-6"].map(ToOwned::to_owned).to_vec(), 5)
    );
    let (read, _) =
        over(&[first.clone(), second.replace("button \"Next\" [e91]", "")], next.clone()).unwrap();
    assert_eq!(ids(&read).len(), 4, "the control is gone on the last page");
    let two = format!("{first}\n{}", first.replace("[e1]", "[e63]").replace("[e90]", "[e93]"));
    assert!(over(&[first, two], next).unwrap_err().contains("nothing tells which"));
}
