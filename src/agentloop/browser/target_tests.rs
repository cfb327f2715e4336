//! What is found again on a changed page, and what is not.

use proptest::prelude::*;

use super::super::testing::page;
use super::*;

/// The element of `then`, looked for on `now`.
fn again(then: &str, reference: u32, now: &str) -> Result<u32, Missing> {
    let target = describe(&page(then), Ref(reference)).unwrap();
    find(&page(now), &target).map(|found| found.0)
}

fn gone(found: &Result<u32, Missing>) -> bool {
    matches!(found, Err(Missing::Gone(_) | Missing::Elsewhere(_)))
}

fn several(found: &Result<u32, Missing>) -> bool {
    matches!(found, Err(Missing::Several(..)))
}

const SHOP: &str = r#"
banner
  link "Home" #href=/
form "Products"
  textbox "Search" #id=q #name=q
  button "Search" #id=go
"#;

#[test]
fn a_page_that_moved_its_parts_about_still_has_them() {
    let moved = r#"
main
  region "All of it"
    region "Search the shop"
      button "Search" #id=r17 @html/body/div/div/button[2] [e70]
      textbox "search:" #id=field #name=query [e71]
"#;
    assert_eq!(again(SHOP, 5, moved), Ok(70));
    assert_eq!(again(SHOP, 4, moved), Ok(71));
    assert_eq!(again(SHOP, 5, "link \"Search\" [e9]"), Ok(9), "a button that is a link now");
    assert!(gone(&again(SHOP, 5, "heading \"Search\"")), "a heading cannot be pressed");
}

#[test]
fn who_has_another_name_is_another() {
    let renamed = SHOP.replace("button \"Search\"", "button \"Delete\"");
    assert!(gone(&again(SHOP, 5, &renamed)), "though its id and its place are the same");
    assert!(gone(&again(SHOP, 4, &SHOP.replace("textbox \"Search\"", "textbox \"Card number\""))));
}

#[test]
fn equals_are_told_apart_by_where_they_stand() {
    let two = |first: &str, second: &str| {
        format!("form \"{first}\"\n  button \"Search\" [e11]\nform \"{second}\"\n  button \"Search\" [e12]")
    };
    assert_eq!(again(&two("Products", "Users"), 12, &two("Users", "Products")), Ok(11));
    assert_eq!(again(&two("Products", "Users"), 11, &two("Users", "Products")), Ok(12));
    let left = "form \"Users\"\n  button \"Search\"";
    assert!(gone(&again(&two("Products", "Users"), 11, left)), "the one that is left is the other one");
    assert_eq!(again(left, 2, &two("Products", "Users")), Ok(12), "there was one, now there are two");
    assert!(several(&again("button \"Search\"", 1, &two("Products", "Users"))));
}

const ORDERS: &str = r#"
table "Orders"
  row "A-1 open"
    cell "A-1"
    cell "open"
    button "Delete" #id=delete-0
  row "A-2 open"
    cell "A-2"
    cell "open"
    button "Delete" #id=delete-1
"#;

#[test]
fn a_row_is_known_by_what_stands_in_it() {
    let turned = r#"
list "Orders"
  listitem
    heading "A-2"
    text "paid"
    button "Delete" #id=delete-0 [e40]
  listitem
    heading "A-1"
    text "open"
    button "Delete" #id=delete-1 [e41]
"#;
    assert_eq!(again(ORDERS, 5, turned), Ok(41), "sorted otherwise, with the identifiers of the places");
    assert_eq!(again(ORDERS, 9, turned), Ok(40));
    let only = "table \"Orders\"\n  row \"A-3 open\"\n    cell \"A-3\"\n    button \"Delete\" #id=delete-0";
    assert!(gone(&again(ORDERS, 5, only)));
    let one = "table \"Orders\"\n  row \"A-1 open\"\n    cell \"A-1\"\n    button \"Delete\"";
    assert!(gone(&again(one, 4, only)), "also where there was only one row");
    assert_eq!(again(one, 4, ORDERS), Ok(5));
}

#[test]
fn equals_that_nothing_around_names_are_told_apart_by_what_is_said_beside_them() {
    let products = |names: [&str; 3]| -> String {
        names.map(|name| format!("text \"{name}\"\nbutton \"Add\"")).join("\n")
    };
    let then = products(["Tea", "Rice", "Salt"]);
    assert_eq!(again(&then, 4, &format!("heading \"Shop\"\n{then}")), Ok(5));
    assert!(
        gone(&again(&then, 4, &products(["Rice", "Tea", "Salt"]))),
        "never the second for the second's sake"
    );
    let bare = "button \"Add\"\nbutton \"Add\"\nbutton \"Add\"";
    assert_eq!(again(bare, 2, bare), Ok(2));
    assert!(several(&again(bare, 2, "button \"Add\"\nbutton \"Add\"")), "the second of three was meant");
}

#[test]
fn who_has_no_name_is_known_by_marks_then_text_then_place() {
    let fields = "textbox #name=from\ntextbox #name=to";
    assert_eq!(again(fields, 2, "textbox #name=to\ntextbox #name=from\ntextbox #name=via"), Ok(1));
    assert!(several(&again(fields, 2, "textbox #name=a\ntextbox #name=b")));
    let texts = "generic\n  text \"Open\"\ngeneric\n  text \"Close\"";
    assert_eq!(again(texts, 3, "generic\n  text \"Close\"\ngeneric\n  text \"Open\""), Ok(1));
    assert!(gone(&again(texts, 3, "generic\n  text \"Open\"")));
    let bare = "textbox @html/body/input\ntextbox @html/body/input[2]";
    assert_eq!(again(bare, 1, "textbox @html/body/input[2]\ntextbox @html/body/input"), Ok(2));
    assert_eq!(again(bare, 2, "textbox @html/body/p/input\ntextbox @html/body/p/input[2]"), Ok(2));
    assert!(several(&again(bare, 1, "textbox @html/body/input\ntextbox\ntextbox")));
    assert_eq!(again("table\n  row\n    cell \"5\"", 1, "main\n  table\n    row\n      cell \"7\""), Ok(2));
}

#[test]
fn what_is_remembered_is_what_tells_apart() {
    let target = describe(&page(ORDERS), Ref(9)).unwrap();
    assert_eq!(
        serde_json::to_value(&target).unwrap(),
        serde_json::json!({"role": "button", "name": "Delete", "path": "html/body/x[9]",
            "within": [{"role": "row", "name": "A-2"}, {"role": "table", "name": "Orders"}]})
    );
    assert_eq!(target.to_string(), "button \"Delete\" in row \"A-2\"");
    assert_eq!(describe(&page(SHOP), Ref(4)).unwrap().attributes.len(), 2);
    assert_eq!(describe(&page(SHOP), Ref(99)), None);
    assert!(serde_json::from_str::<Target>(r#"{"role": "button", "xpath": "//x"}"#).is_err());
}

fn any_page() -> impl Strategy<Value = Snapshot> {
    let roles = prop::sample::select(vec![
        "button", "link", "row", "cell", "form", "heading", "text", "textbox", "listitem",
    ]);
    let names = prop::sample::select(vec!["", "A", "B", "Save", "save "]);
    let ids = prop::option::of(prop::sample::select(vec!["x", "y", "z1"]));
    let node = (roles, names, ids, any::<prop::sample::Index>(), 0..5_usize);
    prop::collection::vec(node, 1..30).prop_map(|drawn| {
        let mut nodes: Vec<Node> = Vec::new();
        let mut open: Vec<usize> = Vec::new();
        for (at, (role, name, id, _, up)) in drawn.into_iter().enumerate() {
            open.truncate(open.len().saturating_sub(up));
            let attributes = id.map(|id| ("id".to_owned(), id.to_owned())).into_iter().collect();
            let reference = (role != "text").then_some(Ref(u32::try_from(at).unwrap()));
            let path = format!("html/x[{at}]");
            let (role, name) = (role.to_owned(), name.to_owned());
            nodes.push(Node {
                reference,
                parent: open.last().copied(),
                role,
                name,
                attributes,
                path,
                ..Node::default()
            });
            open.push(at);
        }
        Snapshot { nodes, ..Snapshot::default() }
    })
}

proptest! {
    #[test]
    fn on_the_same_page_everything_is_found_again(page in any_page()) {
        for reference in page.nodes.iter().filter_map(|node| node.reference) {
            let target = describe(&page, reference).unwrap();
            prop_assert_eq!(find(&page, &target), Ok(reference), "{:?}", target);
            let target = describe_read(&page, reference, &Read::Text).unwrap();
            prop_assert_eq!(find(&page, &target), Ok(reference), "{:?}", target);
        }
    }

    #[test]
    fn on_another_page_what_is_found_has_the_name_and_the_row(then in any_page(), now in any_page()) {
        for reference in then.nodes.iter().filter_map(|node| node.reference) {
            let target = describe(&then, reference).unwrap();
            let Ok(found) = find(&now, &target) else { continue };
            let place = now.place(found).unwrap();
            prop_assert!(same(&now.nodes[place].name, &target.name));
            for item in target.within.iter().filter(|within| is_item(&within.role)) {
                prop_assert!(stands_in(&now, place, item));
            }
        }
    }
}

/// The element of `then` whose text is read, looked for on `now`.
fn read_again(then: &str, reference: u32, now: &str) -> Result<u32, Missing> {
    let target = describe_read(&page(then), Ref(reference), &Read::Text).unwrap();
    assert!(target.data && target.name.is_empty() && target.text.is_empty(), "{target:?}");
    find(&page(now), &target).map(|found| found.0)
}

const FIGURES: &str = r#"
main
  heading "Account" !1
  table "Orders"
    row
      columnheader "Order"
      columnheader "Total"
      columnheader "Weight"
    row
      cell "A-1"
      cell "12.50"
      cell "7"
    row
      cell "A-2"
      cell "7"
      cell "12.50"
  generic
    text "Balance"
  generic
    text "12.50"
  generic
    text "Credit"
  generic
    text "7.00"
  table
    row
      rowheader "Limit"
      cell "100"
    row
      rowheader "Used"
      cell "40"
"#;

#[test]
fn what_is_read_is_found_by_its_place_and_never_by_what_it_says() {
    let swapped = |one: &str, other: &str| FIGURES.replace(one, "@").replace(other, one).replace('@', other);
    let total = 10;
    assert_eq!(read_again(FIGURES, total, FIGURES), Ok(total));
    let values = FIGURES.replace("12.50", "13.00");
    assert_eq!(read_again(FIGURES, total, &values), Ok(total), "today it says something else");
    assert_eq!(read_again(FIGURES, total, &swapped("\"12.50\"", "\"7\"")), Ok(total), "another says it now");
    assert!(gone(&read_again(FIGURES, total, &swapped("A-1", "A-2"))), "another order is the first one");
    let columns = swapped("Total", "Weight");
    assert_eq!(read_again(FIGURES, total, &columns), Ok(11), "the columns have changed places");
    assert!(gone(&read_again(FIGURES, total, &FIGURES.replace("Total", "Sum"))));
    let credit = 22;
    assert_eq!(read_again(FIGURES, credit, &swapped("Balance", "Credit")), Ok(18));
    assert!(gone(&read_again(FIGURES, credit, &FIGURES.replace("Credit", "Debt"))));
    let used = 30;
    assert_eq!(
        read_again(FIGURES, used, &swapped("Limit", "Used")),
        Ok(27),
        "a row with a header of its own"
    );
}

#[test]
fn headings_items_and_texts_that_are_read_have_places_too() {
    let titles = "heading \"Tea\" @h1\nheading \"Rice\" @h2";
    let turned = "heading \"Rice\" @h1\nheading \"Tea\" @h2";
    assert_eq!(
        read_again(titles, 2, turned),
        Err(Missing::Elsewhere("heading under the heading \"Tea\"".into()))
    );
    assert_eq!(read_again(titles, 1, "heading \"Salt\" @h1\nheading \"Rice\" @h2"), Ok(1));
    let news = "list\n  listitem\n    text \"One\"\n  listitem\n    text \"Two\"";
    assert_eq!(read_again(news, 4, &news.replace("Two", "Three")), Ok(4));
    assert_eq!(
        read_again(news, 4, "list\n  listitem\n    text \"Two\"\n  listitem\n    text \"One\""),
        Ok(4)
    );
    let counts =
        "paragraph\n  generic\n    text \"3\"\n  text \"open\"\n  generic\n    text \"7\"\n  text \"closed\"";
    assert_eq!(read_again(counts, 2, &counts.replace('3', "4")), Ok(2));
    assert!(gone(&read_again(counts, 2, &counts.replace("open", "late"))));
    let link =
        describe_read(&page("link \"Report\" #href=/a"), Ref(1), &Read::Attribute("href".into())).unwrap();
    assert_eq!(find(&page("link \"Report\" #href=/b"), &link), Ok(Ref(1)));
    assert!(!describe_read(&page("status \"Balance\"\n  text \"5\""), Ref(1), &Read::Text).unwrap().data);
}
