BEGIN TRANSACTION;
CREATE TABLE bad_rows (
    file TEXT NOT NULL,
    line INTEGER NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (file, line)
) WITHOUT ROWID;
CREATE TABLE persons (
    id INTEGER PRIMARY KEY,
    person_id TEXT NOT NULL UNIQUE,
    group_ids TEXT NOT NULL,    -- JSON
    name TEXT,
    tag TEXT,
    listing INTEGER NOT NULL,   -- the listing that last named the person
    before TEXT                 -- JSON: the person's faces before the latest request; NULL until there was one
);
INSERT INTO "persons" VALUES(1,'person0','["staff"]',NULL,NULL,1,'[]');
INSERT INTO "persons" VALUES(2,'person1','["staff"]',NULL,NULL,1,'[]');
CREATE TABLE project (
    appid TEXT NOT NULL,
    bucket TEXT NOT NULL,
    rank INTEGER NOT NULL,      -- this journal is for the persons of one part,
    world INTEGER NOT NULL,     -- of so many
    listing INTEGER NOT NULL    -- how often a source was listed
);
INSERT INTO "project" VALUES('123456','test',0,1,1);
CREATE TABLE units (
    id INTEGER PRIMARY KEY,
    person INTEGER NOT NULL REFERENCES persons (id),
    source TEXT NOT NULL,
    size INTEGER NOT NULL,      -- of the file when it was listed; 0 for URLs and what was not there
    stamp TEXT NOT NULL,        -- tells a file that has changed since; '' for URLs and what was not there
    tag TEXT,
    sha256 BLOB,                -- of the picture's bytes, or of the URL, once it was read
    state TEXT NOT NULL DEFAULT 'pending',
    face_id TEXT,
    code TEXT,                  -- why it failed, and with 'pending' why it is to be tried again
    reason TEXT
);
INSERT INTO "units" VALUES(1,1,'people/person0/00.jpg',15,'f.18eb70626e7b989c',NULL,X'056730DCE34A04AC06D9EBA1C0B4F7FBF1182B2450F46401ABB51BECCBDAE642','done','2517499190257956999',NULL,NULL);
INSERT INTO "units" VALUES(2,1,'people/person0/01.jpg',15,'f.18eb70626e7c2cae',NULL,X'830E675A30E64CA83D212005A370EC69F5AA0BF52948B2E762103870D81147FD','done','8592451232076613868',NULL,NULL);
INSERT INTO "units" VALUES(3,2,'people/person1/00.jpg',15,'f.18eb70626e7d02ca',NULL,X'852C450E069896FF3F5468711F8F8FA89DF3FA76E66756A175C2B08A4FF3D5C0','done','9359209810629166916',NULL,NULL);
INSERT INTO "units" VALUES(4,2,'people/person1/01.jpg',15,'f.18eb7062702d988e',NULL,X'899118EF6A67462688F4BA51B4D1E4997DA424324F2005193A5CC4660472538B','done','4604279057626859492',NULL,NULL);
CREATE UNIQUE INDEX unit_sources ON units (person, source, stamp);
CREATE UNIQUE INDEX unit_contents ON units (person, sha256) WHERE sha256 IS NOT NULL AND state <> 'collapsed';
CREATE INDEX unit_unfinished ON units (person) WHERE state IN ('pending', 'intent', 'ambiguous');
COMMIT;
PRAGMA user_version = 1;
PRAGMA application_id = 1717651969;
