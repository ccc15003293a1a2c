"""How the ledger's database is opened and brought up to date."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock
from sqlalchemy import Connection, Engine, create_engine, event, exc, inspect, make_url, text

from tango_cloud.core.errors import ConfigurationError, Fault, LedgerUnavailable

HEAD = "0005"
"""The newest migration. A test holds it against the folder `migrations/versions`."""
_MIGRATIONS = Path(__file__).with_name("migrations")
_BUSY_SECONDS = 60
"""How long a caller waits for others to write, or for a connection that other threads have: those
may be waiting to write."""


class Database:
    """The engine, with one rule: what writes begins as a writer.

    A SQLite transaction that reads first and writes later can fail half-way when another process
    wrote in between; one that begins as a writer waits its turn. Both raise LedgerUnavailable.
    """

    def __init__(self, url: str) -> None:
        self._engine = _engine(url)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        with _told_apart(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        with (
            _told_apart(),
            self._engine.connect().execution_options(tango_read=True) as connection,
        ):
            yield connection

    def close(self) -> None:
        self._engine.dispose()


def open_database(url: str, lock_dir: Path) -> Database:
    """The database at `url`, its schema made or migrated under a lock in `lock_dir`.

    Raises ConfigurationError when it cannot be opened, or is newer than this version.
    """
    try:
        engine = _engine(url)
        if _version(engine) != HEAD:
            with FileLock(lock_dir / "ledger.lock"):
                _migrate(engine)
        engine.dispose()
    except (exc.SQLAlchemyError, OSError) as error:
        raise ConfigurationError(
            [Fault("ledger_url", f"cannot open the ledger: {_said(error)}", "a writable database")]
        ) from error
    return Database(url)


@contextmanager
def _told_apart() -> Iterator[None]:
    """What the database's surroundings do to it, from mistakes of ours."""
    try:
        yield
    except (exc.OperationalError, exc.InterfaceError, exc.TimeoutError) as error:
        raise LedgerUnavailable(f"the ledger cannot be used: {_said(error)}") from error


def _said(error: Exception) -> object:
    """By the database itself, where it was that."""
    return error.orig if isinstance(error, exc.DBAPIError) else error


def _engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite" and parsed.database in {None, "", ":memory:"}:
            raise ConfigurationError([Fault("ledger_url", "processes share it", "a file")])
        engine = create_engine(parsed, pool_timeout=_BUSY_SECONDS)
    except ModuleNotFoundError as error:
        fault = Fault(
            "ledger_url", f"this database needs {error.name}", f"pip install {error.name}"
        )
        raise ConfigurationError([fault]) from error
    except (exc.ArgumentError, exc.NoSuchModuleError, ValueError) as error:
        raise ConfigurationError([Fault("ledger_url", str(error), "an SQLAlchemy URL")]) from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _configure_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    # The driver must not begin transactions by itself: `_begin_sqlite` chooses their kind.
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {_BUSY_SECONDS * 1000}")
    connection.execute("PRAGMA journal_mode = WAL")
    # In WAL mode this keeps every transaction through a crash of ours, though not through a power
    # cut: the cloud's tags are the truth, and rebuild the last moments.
    connection.execute("PRAGMA synchronous = NORMAL")


def _begin_sqlite(connection: Connection) -> None:
    reading = connection.get_execution_options().get("tango_read", False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def _version(engine: Engine) -> str | None:
    if not inspect(engine).has_table("alembic_version"):
        return None
    with engine.connect() as connection:
        return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _migrate(engine: Engine) -> None:
    # Imported here: a ledger that is up to date, nearly always, does not need it.
    from alembic import command
    from alembic.config import Config

    found = _version(engine)
    if found == HEAD:
        return  # another process was faster
    if found is not None and found > HEAD:
        raise ConfigurationError(
            [Fault("ledger_url", f"its schema is {found}", f"at most {HEAD}: upgrade tango-cloud")]
        )
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
