"""The annotation table: what it means, and one clear error for each way of getting it wrong."""

import math

import pytest

from data_pipelines.errors import DataError, TableError
from data_pipelines.table import class_families, class_names, hold_out, labelled_rows, read_table


@pytest.fixture
def write(tmp_path):
    """Writes a table beside six empty files, and returns the folder and the table's name."""
    for name in ("a.mp4", "b.mp4", "c.MKV", "d.avi", "notes.txt", "a.npz"):
        (tmp_path / name).touch()

    def write_table(*lines):
        (tmp_path / "table.csv").write_text("\n".join(lines) + "\n")
        return tmp_path, "table.csv"

    return write_table


def test_rows_have_their_columns(write):
    folder, _ = write("")
    lines = "a.mp4,run,train,1.5,3,sport,a.npz", f"{folder / 'b.mp4'},,test,,,,"
    first, second = read_table(*write("path,label,split,start,end,family,flow", *lines))
    assert first == (0, folder / "a.mp4", "run", "train", 1.5, 3.0, "sport", folder / "a.npz")
    assert second == (1, folder / "b.mp4", "", "test", 0.0, math.inf, "", None)


def test_optional_columns_may_be_missing_and_a_byte_order_mark_is_no_matter(write):
    folder, table = write("\ufeffpath,label,split", " a.mp4 , run , train ")
    assert read_table(folder, table) == [(0, folder / "a.mp4", "run", "train", 0, math.inf, "", None)]


def test_the_table_may_lie_elsewhere(write, tmp_path_factory):
    folder, _ = write("")
    path = tmp_path_factory.mktemp("tables") / "other.csv"
    path.write_text("path,label,split\na.mp4,run,train\n")
    assert read_table(folder, path)[0].path == folder / "a.mp4"


def test_without_a_table_every_video_is_an_unlabelled_training_clip(write):
    folder, table = write("")
    (folder / table).unlink()
    (folder / "more").mkdir()
    (folder / "more" / "e.webm").touch()
    rows = read_table(folder)
    names = ["a.mp4", "b.mp4", "c.MKV", "d.avi", "more/e.webm"]
    assert [row.path for row in rows] == [folder / name for name in names]
    assert {(row.label, row.split) for row in rows} == {("", "train")}
    assert [row.index for row in rows] == [0, 1, 2, 3, 4]


def test_missing_and_empty_folders_are_named(tmp_path):
    with pytest.raises(TableError, match="gone: no such folder"):
        read_table(tmp_path / "gone")
    with pytest.raises(TableError, match="has no video files"):
        read_table(tmp_path)


HEADER = "path,label,split"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["path,lable,split", "a.mp4,run,train"], "unknown column 'lable'. Did you mean 'label'"),
        (["path,split", "a.mp4,train"], "column 'label' is missing"),
        ([""], "column 'path' is missing"),
        ([HEADER], "has a header but no rows"),
        ([HEADER, "a.mp4,run"], "row 1: has more or fewer cells"),
        ([HEADER, "a.mp4,run,train,x"], "row 1: has more or fewer cells"),
        ([HEADER, "a.mp4,run,train", ",run,train"], "row 2: 'path' is empty"),
        ([HEADER, "a.mp4,run,"], "row 1: 'split' is empty"),
        ([HEADER, "a.mp4,run,train", "x.mp4,run,train"], r"1 files are gone:\n  row 2: .*x\.mp4"),
        ([HEADER + ",flow", "a.mp4,run,train,x.npz"], r"row 1: .*x\.npz"),
        ([HEADER, "a.mp4,run,train", "b.mp4,rum,test"], "row 2: label 'rum' .*mean 'run'"),
        ([HEADER + ",start", "a.mp4,run,train,soon"], "row 1: start must be .*found 'soon'"),
        ([HEADER + ",start", "a.mp4,run,train,-1"], "row 1: start must be .*found '-1'"),
        ([HEADER + ",end", "a.mp4,run,train,inf"], "row 1: end must be .*found 'inf'"),
        ([HEADER + ",start,end", "a.mp4,run,train,2,2"], "row 1: start 2 s is not before end 2 s"),
    ],
)
def test_faults_of_a_table_are_named(write, lines, message):
    with pytest.raises(TableError, match=message):
        read_table(*write(*lines))


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(TableError, match=r"table\.csv: no such table"):
        read_table(tmp_path, "table.csv")


def test_of_many_missing_files_ten_are_listed_and_all_are_counted(write):
    rows = [f"x{i}.mp4,run,train" for i in range(13)]
    with pytest.raises(TableError, match="13 files are gone") as caught:
        read_table(*write(HEADER, *rows))
    assert "x9.mp4" in str(caught.value) and "x10.mp4" not in str(caught.value)
    assert str(caught.value).endswith("... and 3 more")


def test_classes_are_the_training_labels_in_order(write):
    rows = read_table(*write(HEADER, "a.mp4,b,train", "b.mp4,a,train", "d.avi,,train"))
    assert class_names(rows) == ("a", "b")
    assert class_names(rows, ("c", "b", "a")) == ("b", "a")


def test_a_table_of_test_clips_alone_has_their_classes(write):
    rows = read_table(*write(HEADER, "a.mp4,b,test", "b.mp4,a,test"))
    assert class_names(rows) == ("a", "b")
    assert hold_out(rows, 0.5) == rows


def test_classes_are_those_of_a_network_that_knows_them_all(write):
    rows = read_table(*write(HEADER, "a.mp4,b,train", "b.mp4,a,train"))
    assert class_names(rows, known=("c", "b", "a")) == ("c", "b", "a")
    assert class_names(rows, known=("c", "b")) == ("a", "b")
    assert class_names(read_table(*write(HEADER, "a.mp4,,train")), known=("a", "b")) == ()


def test_a_class_has_one_family(write):
    header = HEADER + ",family"
    rows = read_table(*write(header, "a.mp4,run,train,sport", "b.mp4,sit,train,"))
    assert class_families(rows) == {"run": "sport"}
    rows = read_table(*write(header, "a.mp4,run,train,sport", "b.mp4,run,train,art"))
    with pytest.raises(TableError, match="row 2: label 'run' has two families, 'sport' and 'art'"):
        class_families(rows)


def test_few_labels_are_the_same_few_and_nested(write):
    lines = [f"a.mp4,{'xy'[i % 2]},train" for i in range(40)] + ["b.mp4,x,test", "b.mp4,,train"]
    rows = read_table(*write(HEADER, *lines))
    assert labelled_rows(rows, 0) == set(range(40))
    few, more = labelled_rows(rows, 3), labelled_rows(rows, 10)
    assert few == labelled_rows(rows, 3) and few < more
    others = labelled_rows(rows, 3, seed=1)
    assert len(others) == len(few) and others != few and others == labelled_rows(rows, 3, seed=1)
    assert sorted(rows[i].label for i in few) == ["x"] * 3 + ["y"] * 3
    assert more != set(range(20))  # drawn, not the first ones


def test_a_share_of_each_class_is_held_out(write):
    lines = [f"a.mp4,{'xy'[i % 4 == 0]},train" for i in range(40)] + ["b.mp4,,train"] * 10
    rows = read_table(*write(HEADER, *lines, "b.mp4,x,test", "a.mp4,z,train"))
    shared = hold_out(rows, 0.2)
    held = [row for row in shared if row.split == "validation"]
    counts = {label: [row.label for row in held].count(label) for label in ("x", "y", "", "z")}
    assert counts == {"x": 6, "y": 2, "": 2, "z": 0}
    assert shared == hold_out(rows, 0.2)  # the same ones, and otherwise the table
    assert [row._replace(split=old.split) for row, old in zip(shared, rows, strict=True)] == rows
    assert [row.index for row in held if row.label == "x"] != [1, 2, 3, 5, 6, 7]  # drawn
    most = hold_out(rows, 0.99)
    assert class_names(most) == ("x", "y", "z")  # of each class one stays


def test_a_share_must_hold_out_something_into_a_new_split(write):
    rows = read_table(*write(HEADER, "a.mp4,x,train", "b.mp4,x,train"))
    with pytest.raises(DataError, match="validation_share: found 0.2, which is less than a clip"):
        hold_out(rows, 0.2)
    rows = read_table(*write(HEADER, "a.mp4,x,train", "b.mp4,x,train", "d.avi,x,validation"))
    with pytest.raises(DataError, match="found 0.5, but the table has a split 'validation'"):
        hold_out(rows, 0.5)


def test_a_table_in_the_folder_is_used_without_being_named(tmp_path):
    (tmp_path / "a.mp4").touch()
    (tmp_path / "._a.mp4").touch()  # what some systems leave beside a file is no video
    assert [row.label for row in read_table(tmp_path)] == [""]
    (tmp_path / "table.csv").write_text("path,label,split\na.mp4,run,train\n")
    assert [row.label for row in read_table(tmp_path)] == ["run"]


def test_a_table_that_is_not_utf8_or_names_a_column_twice_is_refused(tmp_path):
    table = tmp_path / "table.csv"
    table.write_bytes("path,label,split\na.mp4,Rückhand,train\n".encode("cp1252"))
    with pytest.raises(TableError, match="table.csv: is not a CSV file in UTF-8"):
        read_table(tmp_path)
    table.write_text("path,label,split,label\n")
    with pytest.raises(TableError, match="column 'label' occurs twice"):
        read_table(tmp_path)
