"""Questions to DuckDB: many at once, in a process and in its children."""

import os
from concurrent.futures import ThreadPoolExecutor

from interp.runs.query import database, query


def test_questions_at_once_have_numbers_of_their_own():
    """Each asks with a parameter of the same name."""

    def total(number):
        sql = "SELECT sum(x) AS x FROM (SELECT unnest($given) AS x)"
        return int(query(sql, {"given": list(range(number))})["x"][0])

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(total, range(2, 100)))
    assert found == [n * (n - 1) // 2 for n in range(2, 100)]


def test_a_forked_child_has_a_database_of_its_own():
    query("SELECT 1")
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        os.write(write, str(int(query("SELECT 7 AS x")["x"][0])).encode())
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert os.read(read, 9) == b"7"


def test_what_it_holds_is_bounded():
    settings = database(os.getpid()).sql("FROM duckdb_settings()").df().set_index("name")["value"]
    assert settings["memory_limit"] == "488.2 MiB"
    assert int(settings["threads"]) <= 4
