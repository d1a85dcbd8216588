"""What the page says of runs that were made of others."""

from __future__ import annotations

from repertoire.recipe import TrainConfig
from repertoire.report._made_of import made_of, making
from repertoire.report._remedies import Remedies


def test_a_run_that_was_trained_has_no_such_section():
    assert made_of({"status": "finished"}) is None


def test_merged_runs_of_other_classes():
    part = {"run": "/x/a", "classes": ["cat", "dog"], "samples": 30, "alone": 0.9, "merged": 0.85}
    made = {"operator": "ties", "runs": ["/x/a", "/x/b"], "key": "accuracy", "before": [0.5, 0.25], "after": 0.75}
    found = made_of({"merged": {**made, "ingredients": [0], "parts": [part]}})
    validation, classes = found["tables"]
    assert validation["rows"] == [["a", "50.0%", "yes"], ["b", "25.0%", "left out"], ["the result", "75.0%", ""]]
    assert classes["rows"] == [["a", "2", "30", "90.0%", "85.0%"]]
    assert "2 runs were merged by ties" in found["text"]
    assert len(made_of({"merged": {**made, "ingredients": [0, 1]}})["tables"]) == 1


def test_the_command_is_the_one_that_made_it():
    merged = {"operator": "ties:scale=0.5", "runs": ["/x/a", "/x/b c"], "base": "/x/start", "data": "photos"}
    found = making({"merged": merged}, "out")
    assert found == "repertoire merge /x/a '/x/b c' --by ties:scale=0.5 --base /x/start --data photos --out out"
    small = {"by": "half", "run": "/x/a"}
    assert making({"compressed": small}, "s") == "repertoire compress /x/a --by half --out s"
    stitched = {"runs": ["/x/a", "/x/b"], "epochs": 2, "lr": 0.01, "distil": 0.5}
    told = "repertoire stitch /x/a /x/b --epochs 2 --lr 0.01 --distil 0.5 --out n"
    assert making({"stitched": stitched}, "n") == told
    assert making({"status": "finished"}, "r") == ""


def test_nothing_about_training_is_proposed_of_what_was_not_trained():
    assert Remedies(TrainConfig(data="digits")).allows("longer")
    assert not Remedies(TrainConfig(data="digits"), trained=False).allows("longer")


def test_routes_of_a_stitched_run():
    routes = [{"share": 0.25, "from": 0, "into": 1, "value": 0.5}, {"share": 1.0, "from": 1, "into": 1, "value": 0.75}]
    found = made_of({"stitched": {"runs": ["/x/small", "/x/large"], "key": "accuracy", "routes": routes}})
    assert found["tables"][0]["rows"] == [["small into large", "25.0%", "50.0%"], ["large", "100.0%", "75.0%"]]


def test_a_compressed_run_and_what_it_is_a_change_of():
    made = {"by": "ternary", "run": "/x/a", "bytes": [2**20, 2**16], "key": "mae", "val": [1.5, 1.6], "test": [2, 2.5]}
    found = made_of({"compressed": made})
    assert [row[0] for row in found["tables"][0]["rows"]] == ["Weights", "Validation mae", "Test mae"]
    assert found["tables"][0]["rows"][0] == ["Weights", "1.0 MiB", "64 KiB"]
    more = {"multiplications": [2e6, 1e6], "origin": {"backbone": "lite0"}}
    found = made_of({"compressed": {**made, **more}})
    assert found["tables"][0]["rows"][1] == ["Multiplications an image", "2,000,000", "1,000,000"]
    assert "a change of the published weights of lite0" in found["text"]
