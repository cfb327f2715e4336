//! Reads tables by the text of their headers.
//!
//! A column is what its header says, wherever it stands. A header that is missing, or that two columns have, is an
//! error: a column of the same place under another header means something else.

use super::Snapshot;
use super::reading::same;

/// A cell, and the columns that it covers.
struct Cell {
    /// Its place among the nodes of the page.
    at: usize,
    text: String,
    from: usize,
    to: usize,
    header: bool,
}

impl Cell {
    fn covers(&self, column: usize) -> bool {
        (self.from..self.to).contains(&column)
    }
}

/// The texts below these headers, row by row. An error names the header or the row.
pub fn rows(page: &Snapshot, table: usize, headers: &[&str]) -> Result<Vec<Vec<String>>, String> {
    if !is_table(&page.nodes[table].role) {
        return Err(format!("it is a {}, and no table", page.nodes[table].role));
    }
    let grid = grid(page, table);
    let heads = heads(&grid, headers);
    let columns: Vec<usize> =
        headers.iter().map(|header| column(&grid[..heads], header)).collect::<Result<_, _>>()?;
    let mut rows = Vec::new();
    for (number, row) in grid[heads..].iter().enumerate() {
        // Headers come again on long tables; what runs across all columns is a remark ("No orders yet").
        let remark =
            row.len() == 1 && row[0].to - row[0].from > 1 && columns.iter().all(|at| row[0].covers(*at));
        if row.is_empty() || remark || row.iter().all(|cell| cell.header) {
            continue;
        }
        let cell = |(column, header): (&usize, &&str)| {
            let cell = row.iter().find(|cell| cell.covers(*column));
            let alone = cell.filter(|cell| columns.iter().filter(|at| cell.covers(**at)).count() == 1);
            alone
                .map(|cell| cell.text.clone())
                .ok_or_else(|| format!("row {} has no cell {header:?} of its own", number + 1))
        };
        rows.push(columns.iter().zip(headers).map(cell).collect::<Result<_, _>>()?);
    }
    Ok(rows)
}

/// How many rows are its head: those that begin it with headers; where it has none the first, if it says what is asked
/// for.
fn heads(grid: &[Vec<Cell>], headers: &[&str]) -> usize {
    let heads = grid.iter().take_while(|row| !row.is_empty() && row.iter().all(|cell| cell.header)).count();
    let said = |row: &Vec<Cell>| headers.iter().all(|header| row.iter().any(|cell| same(&cell.text, header)));
    if heads == 0 && grid.first().is_some_and(said) { 1 } else { heads }
}

/// The one column of this header. Under a header of several columns a column is called by both (`Price net`).
fn column(heads: &[Vec<Cell>], header: &str) -> Result<usize, String> {
    let width = heads.iter().flatten().map(|cell| cell.to).max().unwrap_or_default();
    let names: Vec<Vec<&str>> = (0..width).map(|column| names(heads, column)).collect();
    let called = |names: &Vec<&str>| {
        same(&names.join(" "), header) || names.last().is_some_and(|last| same(last, header))
    };
    let found: Vec<usize> = (0..width).filter(|at| called(&names[*at])).collect();
    match found.as_slice() {
        [one] => Ok(*one),
        [] => {
            let names: Vec<String> = names.iter().map(|names| format!("{:?}", names.join(" "))).collect();
            Err(format!("no column is called {header:?}; the columns are {}", names.join(", ")))
        }
        several => Err(format!("{} columns are called {header:?}", several.len())),
    }
}

/// What a column is called, by the headers over it.
fn names(heads: &[Vec<Cell>], column: usize) -> Vec<&str> {
    let covering = heads.iter().filter_map(|row| row.iter().find(|cell| cell.covers(column)));
    let mut names: Vec<&str> = covering.map(|cell| cell.text.as_str()).collect();
    names.dedup();
    names
}

/// The header of the column that a cell begins in, empty where the table has none, and the number of the column, from 0.
pub fn column_of(page: &Snapshot, cell: usize) -> Option<(String, usize)> {
    let table = page.around(cell).find(|at| is_table(&page.nodes[*at].role))?;
    let grid = grid(page, table);
    let heads = grid.iter().take_while(|row| !row.is_empty() && row.iter().all(|cell| cell.header)).count();
    let column = grid.iter().flatten().find(|own| own.at == cell)?.from;
    Some((names(&grid[..heads], column).join(" ").trim().to_owned(), column))
}

/// The rows of a table without those of tables in it; a cell that runs over several rows stands in each of them.
fn grid(page: &Snapshot, table: usize) -> Vec<Vec<Cell>> {
    let nearest =
        |at: usize, wanted: &dyn Fn(&str) -> bool| page.around(at).find(|at| wanted(&page.nodes[*at].role));
    let mut longer: Vec<(Cell, usize)> = Vec::new();
    let mut grid = Vec::new();
    let rows =
        page.below(table).filter(|(at, node)| node.role == "row" && nearest(*at, &is_table) == Some(table));
    for (row, _) in rows {
        let mut cells: Vec<Cell> = Vec::new();
        for (cell, left) in &mut longer {
            *left -= 1;
            cells.push(Cell { text: cell.text.clone(), ..*cell });
        }
        longer.retain(|(_, left)| *left > 0);
        let own = page
            .below(row)
            .filter(|(at, node)| is_cell(&node.role) && nearest(*at, &|role| role == "row") == Some(row));
        for (at, node) in own {
            let span = |name: &str| {
                node.attributes.get(name).and_then(|n| n.parse().ok()).unwrap_or(1).clamp(1, 1000)
            };
            let from = free(&cells);
            let header = node.role == "columnheader";
            let cell = Cell { at, text: page.text(at), from, to: from + span("colspan"), header };
            if span("rowspan") > 1 {
                longer.push((Cell { text: cell.text.clone(), ..cell }, span("rowspan") - 1));
            }
            cells.push(cell);
        }
        grid.push(cells);
    }
    grid
}

/// The first column that no cell covers.
fn free(cells: &[Cell]) -> usize {
    let mut column = 0;
    while let Some(cell) = cells.iter().find(|cell| cell.covers(column)) {
        column = cell.to;
    }
    column
}

/// Whether elements of this role have rows and columns.
pub fn is_table(role: &str) -> bool {
    matches!(role, "table" | "grid" | "treegrid")
}

/// Whether elements of this role are cells.
pub fn is_cell(role: &str) -> bool {
    matches!(role, "cell" | "gridcell" | "columnheader" | "rowheader")
}

#[cfg(test)]
mod tests {
    use super::super::testing::page;
    use super::*;

    fn read(table: &str, headers: &[&str]) -> Result<Vec<Vec<String>>, String> {
        rows(&page(table), 0, headers)
    }

    const ORDERS: &str = r#"
table
  rowgroup
    row
      columnheader "Order"
      columnheader "Price:"
      columnheader
  row
    rowheader "A-1"
    cell "9.50"
    cell "Open"
  row
    rowheader "A-2"
    cell "7.00"
    cell
"#;

    #[test]
    fn columns_are_found_by_their_headers_wherever_they_stand() {
        assert_eq!(
            read(ORDERS, &["price", "Order"]),
            Ok(vec![vec!["9.50".into(), "A-1".into()], vec!["7.00".into(), "A-2".into()]])
        );
        let first_row = ORDERS.replace("columnheader \"", "cell \"");
        assert_eq!(
            read(&first_row, &["Order"]),
            read(ORDERS, &["Order"]),
            "headers that are said to be cells"
        );
    }

    #[test]
    fn a_missing_header_is_told_with_those_that_are_there() {
        assert_eq!(
            read(ORDERS, &["Order", "Total"]).unwrap_err(),
            "no column is called \"Total\"; the columns are \"Order\", \"Price:\", \"\""
        );
        assert!(read(&ORDERS.replace("Price:", "Order"), &["Order"]).unwrap_err().starts_with("2 columns"));
        assert!(read("list", &["Order"]).unwrap_err().contains("no table"));
        assert!(read("table", &["Order"]).is_err());
    }

    #[test]
    fn headers_of_several_rows_and_cells_of_several_columns_are_read() {
        let table = r#"
table
  row
    columnheader "Order" #rowspan=2
    columnheader "Price" #colspan=2
    columnheader "Weight" #colspan=2
  row
    columnheader "net"
    columnheader "gross"
    columnheader "net"
    columnheader "gross"
  row
    cell "A-1" #rowspan=2
    cell "1"
    cell "2"
    cell "3"
    cell "4"
  row
    cell "5" #colspan=2
    cell "7"
    cell "8"
  row
    cell "Two orders" #colspan=5
"#;
        let row = |texts: [&str; 3]| texts.map(ToOwned::to_owned).to_vec();
        let read = |headers: &[&str]| read(table, headers);
        assert_eq!(
            read(&["Order", "Price net", "weight gross"]),
            Ok(vec![row(["A-1", "1", "4"]), row(["A-1", "5", "8"])])
        );
        assert!(read(&["net"]).unwrap_err().starts_with("2 columns are called"));
        assert_eq!(
            read(&["Price net", "Price gross"]).unwrap_err(),
            "row 2 has no cell \"Price net\" of its own"
        );
    }

    #[test]
    fn a_row_that_lacks_a_cell_is_an_error_and_a_table_in_a_cell_is_not_read() {
        let short = format!("{ORDERS}  row\n    rowheader \"A-3\"\n");
        assert_eq!(read(&short, &["Price"]).unwrap_err(), "row 3 has no cell \"Price\" of its own");
        let nested = ORDERS.replace(
            "    cell \"Open\"\n",
            "    cell \"Open\"\n      table\n        row\n          cell \"inner\"\n          cell \"other\"\n",
        );
        assert_eq!(read(&nested, &["Order"]), read(ORDERS, &["Order"]));
        let again = format!("{ORDERS}  row\n    columnheader \"Order\"\n    columnheader \"Price\"\n");
        assert_eq!(read(&again, &["Order"]), read(ORDERS, &["Order"]));
    }
}
