BEGIN TRANSACTION;
CREATE TABLE changes (
    grp INTEGER NOT NULL REFERENCES groups ON DELETE CASCADE, version INTEGER NOT NULL, face INTEGER NOT NULL,
    PRIMARY KEY (grp, version, face)
) WITHOUT ROWID;
INSERT INTO "changes" VALUES(1,1,1);
INSERT INTO "changes" VALUES(1,2,2);
INSERT INTO "changes" VALUES(1,3,3);
INSERT INTO "changes" VALUES(1,4,2);
INSERT INTO "changes" VALUES(2,1,1);
INSERT INTO "changes" VALUES(2,2,3);
CREATE TABLE faces (
    id INTEGER PRIMARY KEY, face_id TEXT NOT NULL UNIQUE,
    person INTEGER NOT NULL REFERENCES persons ON DELETE CASCADE,
    tag TEXT NOT NULL, x INTEGER NOT NULL, y INTEGER NOT NULL, width REAL NOT NULL, height REAL NOT NULL,
    gender INTEGER NOT NULL, age INTEGER NOT NULL, expression INTEGER NOT NULL, glass INTEGER NOT NULL,
    pitch INTEGER NOT NULL, yaw INTEGER NOT NULL, roll INTEGER NOT NULL,
    recognizer TEXT NOT NULL, embedding BLOB NOT NULL
);
INSERT INTO "faces" VALUES(1,'3646980508252465599',1,'t',44,33,64.0,64.5,99,37,6,1,5,6,0,'toy',X'0000803F00000000');
INSERT INTO "faces" VALUES(3,'8338030435951566737',1,'second',44,33,64.0,64.5,99,37,6,1,5,6,0,'toy',X'0000A04000000000');
CREATE TABLE groups (
    id INTEGER PRIMARY KEY, appid TEXT NOT NULL, group_id TEXT NOT NULL, version INTEGER NOT NULL DEFAULT 0,
    UNIQUE (appid, group_id)
);
INSERT INTO "groups" VALUES(1,'123456','staff',4);
INSERT INTO "groups" VALUES(2,'123456','guests',2);
CREATE TABLE last_face (id INTEGER NOT NULL);
INSERT INTO "last_face" VALUES(3);
CREATE TABLE memberships (
    id INTEGER PRIMARY KEY,
    grp INTEGER NOT NULL REFERENCES groups ON DELETE CASCADE,
    person INTEGER NOT NULL REFERENCES persons ON DELETE CASCADE,
    UNIQUE (grp, person)
);
INSERT INTO "memberships" VALUES(1,1,1);
INSERT INTO "memberships" VALUES(2,2,1);
INSERT INTO "memberships" VALUES(4,2,3);
CREATE TABLE persons (
    id INTEGER PRIMARY KEY, appid TEXT NOT NULL, person_id TEXT NOT NULL, name TEXT NOT NULL, tag TEXT NOT NULL,
    UNIQUE (appid, person_id)
);
INSERT INTO "persons" VALUES(1,'123456','ada','name of ada','t');
INSERT INTO "persons" VALUES(3,'123456','eve','name of eve','t');
CREATE INDEX memberships_by_person ON memberships (person);
CREATE INDEX faces_by_person ON faces (person)
;
COMMIT;
PRAGMA user_version = 2;
PRAGMA application_id = 0;
