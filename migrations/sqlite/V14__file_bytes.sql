-- What all uploaded files have together: an upload asks for it, and to add it up costs the more the more there are.

CREATE TABLE file_bytes (
    one   INTEGER PRIMARY KEY CHECK (one = 1),
    bytes INTEGER NOT NULL CHECK (bytes >= 0)
) STRICT;

INSERT INTO file_bytes (one, bytes) SELECT 1, coalesce(sum(bytes), 0) FROM files;

CREATE TRIGGER files_kept AFTER INSERT ON files BEGIN
    UPDATE file_bytes SET bytes = bytes + new.bytes;
END;

CREATE TRIGGER files_resized AFTER UPDATE OF bytes ON files BEGIN
    UPDATE file_bytes SET bytes = bytes - old.bytes + new.bytes;
END;

CREATE TRIGGER files_removed AFTER DELETE ON files BEGIN
    UPDATE file_bytes SET bytes = bytes - old.bytes;
END;
