//! Which deliveries are attempted next.
//!
//! The oldest first, but an endpoint has only so many places, and what waits for one that hangs may be
//! more than any number of rows that one would look at. So a look is short, and says whether it ended
//! before the last due row; a thorough one then leaves the full endpoints out in SQL.

use std::collections::HashMap;

use rusqlite::{Connection, params};

use super::outbox::delivery_id;
use super::{Error, Store, json, to_json, word};
use crate::ids::DeliveryId;
use crate::model::{Format, SecretSource, WebhookEvent};

/// Due rows that one look takes in.
const LOOK: usize = 256;

/// A delivery that is due.
#[derive(Debug, Clone)]
pub struct DueDelivery {
    /// Its number.
    pub number: i64,
    /// Its id.
    pub id: DeliveryId,
    /// Where to.
    pub url: String,
    /// Where the signing secret comes from.
    pub secret: Option<SecretSource>,
    /// Whether the address may be private.
    pub private: bool,
    /// The shape of the message.
    pub format: Format,
    /// What it tells.
    pub event: WebhookEvent,
    /// The agent's number.
    pub agent: Option<i64>,
    /// The body.
    pub body: String,
    /// Attempts that failed in this round.
    pub failed: usize,
}

impl DueDelivery {
    /// What shares its fate: its URL, and of an agent's own command the agent too.
    #[must_use]
    pub fn endpoint(&self) -> String {
        endpoint_key(&self.url, self.agent)
    }
}

/// URL of a delivery to an agent's `on_failure:` command.
pub const AGENT_COMMAND: &str = "on_failure:agent";
/// URL of a delivery to the daemon's `on_failure:` command.
pub const DAEMON_COMMAND: &str = "on_failure:daemon";

/// The endpoint behind a URL. The commands of two agents are two endpoints.
fn endpoint_key(url: &str, agent: Option<i64>) -> String {
    match agent {
        Some(agent) if url == AGENT_COMMAND => format!("{url}:{agent}"),
        _ => url.to_owned(),
    }
}

/// What is being sent already.
#[derive(Debug, Clone, Default)]
pub struct UnderWay {
    /// Numbers of the deliveries.
    pub numbers: Vec<i64>,
    /// How many of them each endpoint has.
    pub endpoints: HashMap<String, usize>,
}

/// How many attempts of one kind may be under way.
#[derive(Debug, Clone, Copy)]
pub struct Places {
    /// At once.
    pub in_all: usize,
    /// Of these, to one endpoint.
    pub per_endpoint: usize,
}

/// Whether a URL is that of a command.
#[must_use]
pub fn is_command(url: &str) -> bool {
    url.starts_with("on_failure:")
}

/// What a look found.
#[derive(Debug, Default)]
pub struct Due {
    /// Deliveries to attempt now.
    pub found: Vec<DueDelivery>,
    /// Whether there are due rows that were not looked at.
    pub more: bool,
}

impl Store {
    /// Deliveries that are due at `now_ms`, oldest first, within the places for messages and for
    /// commands, counted with those that are under way: commands, which may take long, never take the
    /// places of messages. A `thorough` look passes over whatever waits for endpoints that are full.
    pub async fn due_deliveries(
        &self,
        now_ms: i64,
        under_way: UnderWay,
        [messages, commands]: [Places; 2],
        thorough: bool,
    ) -> Result<Due, Error> {
        let rooms = Rooms::new(under_way, messages, commands);
        self.readers.read(move |db| look(db, now_ms, rooms, thorough)).await
    }

    /// Whether a delivery is due at `now_ms`, or under way.
    pub async fn has_due_deliveries(&self, now_ms: i64) -> Result<bool, Error> {
        let sql = "SELECT 1 FROM deliveries WHERE state = 'PENDING' AND next_at <= ?1";
        self.readers.read(move |db| Ok(db.prepare_cached(sql)?.exists([now_ms])?)).await
    }

    /// When the first delivery is due that is not due at `now_ms`, Unix ms.
    pub async fn next_delivery(&self, now_ms: i64) -> Result<Option<i64>, Error> {
        self.readers
            .read(move |db| {
                let sql = "SELECT min(next_at) FROM deliveries WHERE state = 'PENDING' AND next_at > ?1";
                Ok(db.prepare_cached(sql)?.query_row([now_ms], |row| row.get(0))?)
            })
            .await
    }
}

/// The places that are left.
struct Rooms {
    under_way: UnderWay,
    kinds: [(Places, usize); 2],
}

impl Rooms {
    fn new(under_way: UnderWay, messages: Places, commands: Places) -> Self {
        let busy = |command| -> usize {
            let same = under_way.endpoints.iter().filter(|(endpoint, _)| is_command(endpoint) == command);
            same.map(|(_, n)| n).sum()
        };
        let kinds = [(messages, busy(false)), (commands, busy(true))];
        Self { under_way, kinds }
    }

    fn none_left(&self) -> bool {
        self.kinds.iter().all(|(places, busy)| *busy >= places.in_all)
    }

    /// Takes a place for a delivery, if there is one.
    fn take(&mut self, number: i64, url: &str, agent: Option<i64>) -> bool {
        if self.under_way.numbers.contains(&number) {
            return false;
        }
        let (places, busy) = &mut self.kinds[usize::from(is_command(url))];
        let taken = self.under_way.endpoints.entry(endpoint_key(url, agent)).or_default();
        let room = *taken < places.per_endpoint && *busy < places.in_all;
        *taken += usize::from(room);
        *busy += usize::from(room);
        room
    }

    /// URLs whose endpoints have no place left.
    fn full(&self) -> Vec<&str> {
        let [(messages, _), _] = self.kinds;
        let full = self.under_way.endpoints.iter().filter(|(_, n)| **n >= messages.per_endpoint);
        full.map(|(endpoint, _)| endpoint.as_str()).collect()
    }
}

fn look(db: &Connection, now_ms: i64, mut rooms: Rooms, thorough: bool) -> Result<Due, Error> {
    let full = if thorough { rooms.full() } else { Vec::new() };
    let full = to_json("deliveries", &full)?;
    let sql = if thorough {
        "SELECT number, url, agent FROM deliveries WHERE state = 'PENDING' AND next_at <= ?1
           AND url NOT IN (SELECT value FROM json_each(?2)) ORDER BY next_at LIMIT ?3"
    } else {
        "SELECT number, url, agent FROM deliveries WHERE state = 'PENDING' AND next_at <= ?1 AND ?2 IS ?2
         ORDER BY next_at LIMIT ?3"
    };
    let limit = i64::try_from(LOOK + 1).unwrap_or(i64::MAX);
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query(params![now_ms, full, limit])?;
    let (mut due, mut seen) = (Due::default(), 0);
    while let Some(row) = rows.next()? {
        seen += 1;
        if seen > LOOK {
            due.more = !rooms.none_left();
            break;
        }
        let (number, url, agent): (i64, String, Option<i64>) = (row.get(0)?, row.get(1)?, row.get(2)?);
        if rooms.take(number, &url, agent) {
            due.found.push(read(db, number, url, agent)?);
        }
    }
    Ok(due)
}

fn read(db: &Connection, number: i64, url: String, agent: Option<i64>) -> Result<DueDelivery, Error> {
    let sql = "SELECT id, type, secret, private, format, body, failed FROM deliveries WHERE number = ?1";
    let delivery = db.prepare_cached(sql)?.query_row([number], |row| {
        Ok(DueDelivery {
            number,
            id: delivery_id(row, "id")?,
            event: word(row, "type")?,
            url,
            secret: json(row, "secret")?,
            private: row.get("private")?,
            format: word(row, "format")?,
            agent,
            body: row.get("body")?,
            failed: row.get::<_, i64>("failed")?.try_into().unwrap_or(0),
        })
    })?;
    Ok(delivery)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGES: Places = Places { in_all: 3, per_endpoint: 2 };
    const COMMANDS: Places = Places { in_all: 1, per_endpoint: 1 };

    #[test]
    fn an_endpoint_has_its_places_and_no_other_ones() {
        let under_way = UnderWay { numbers: vec![1], endpoints: HashMap::from_iter([("u".to_owned(), 1)]) };
        let mut rooms = Rooms::new(under_way, MESSAGES, COMMANDS);
        assert!(!rooms.take(1, "u", None), "it is under way");
        assert!(rooms.take(2, "u", None) && !rooms.take(3, "u", None));
        assert_eq!(rooms.full(), ["u"]);
        assert!(rooms.take(4, "v", None) && !rooms.take(5, "w", None), "three in all");
        assert!(!rooms.none_left());
        assert!(rooms.take(6, AGENT_COMMAND, Some(1)) && !rooms.take(7, AGENT_COMMAND, Some(2)));
        assert!(rooms.none_left());
    }

    #[test]
    fn the_commands_of_two_agents_are_two_endpoints() {
        let places = Places { in_all: 9, per_endpoint: 1 };
        let mut rooms = Rooms::new(UnderWay::default(), MESSAGES, places);
        assert!(rooms.take(1, AGENT_COMMAND, Some(1)) && !rooms.take(2, AGENT_COMMAND, Some(1)));
        assert!(rooms.take(3, AGENT_COMMAND, Some(2)) && rooms.take(4, DAEMON_COMMAND, Some(1)));
    }
}
