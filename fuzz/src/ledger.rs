//! The ledger's file, as a crash, a bad disk or another node's export may leave it.

use pintle::ledger::line::Read;
use pintle::ledger::{Book, Record, read_book};

/// A file: what is read of it is the same when it is written anew, in whatever order.
pub fn ledger(data: &[u8]) {
    for line in data.split(|b| *b == b'\n') {
        if let Read::Good(record) | Read::Doubtful(record) = Record::read(line) {
            let written = record.line();
            assert_eq!(Record::read(written.trim_end().as_bytes()), Read::Good(record), "{written}");
        }
    }
    let (book, notices) = read_book(data);
    for notice in &notices {
        let _ = notice.to_string();
    }
    let mut records: Vec<Record> = book.records().collect();
    records.reverse();
    let mut again = Book::default();
    for record in records {
        again.apply(record);
    }
    // A ledger reads back equal whatever it writes.
    let written = pintle::ledger::written(&book);
    let (read, notices) = read_book(written.as_bytes());
    assert_eq!(notices, []);
    assert!(read.records().eq(book.records()));
    let in_order = |book: &Book| {
        let mut promises: Vec<String> = book.promises().iter().map(|promise| format!("{promise:?}")).collect();
        promises.sort();
        promises
    };
    assert_eq!(in_order(&read), in_order(&book));
    assert_eq!(again.len(), book.len());
    assert_eq!((book.news(&again), again.news(&book)), (Vec::new(), Vec::new()));
}
