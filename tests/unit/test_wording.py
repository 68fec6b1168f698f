"""What the page says in words: honest in every direction, silent on what was not measured."""

from __future__ import annotations

import re

from report_results import EVIL, gain, results

from saadi.report import results_table
from saadi.report.headline import headline
from saadi.report.wording import (
    arm_name,
    contrast_name,
    duration,
    estimate,
    last_round,
    number,
    short,
    span,
    verdict,
)


def test_the_headline_is_honest_in_every_direction() -> None:
    sentence, more = headline(results())
    basis = "(95 % interval 1.2 to 7.0, n = 1600 test images of 20 patients, 3 trainings)"
    assert sentence == f"Aligned images (round 2) add 4.1 points of balanced accuracy over real images alone {basis}."
    assert more[0] == "Alignment beats unaligned images by 2.0 points (95 % interval 0.1 to 4.0)."
    assert "is not shown to differ from rejection sampling with the same critic: −1.0 points" in more[1]
    assert more[2].endswith("+8.2 points over real images alone (95 % interval 2.4 to 14.0).")
    sentence, _ = headline(results((0.01, -0.02, 0.04)))
    assert sentence.startswith("No gain shown: ")
    assert "changes by +1.0 points against real images alone, and the interval includes zero" in sentence
    sentence, more = headline(results((-0.03, -0.05, -0.01)))
    assert sentence.startswith("Aligned images (round 2) do harm: they cost 3.0 points")
    assert more[2].endswith("a loss).")
    behind = results()
    behind["gains"]["round-2 - rejection"] = gain(-0.02, -0.03, -0.01)
    assert "Alignment falls 2.0 points behind rejection sampling" in headline(behind)[1][1]


def test_the_headline_is_about_the_round_that_val_chose() -> None:
    found = results() | {"led": True, "picked": False}
    found["arms"] |= {"round-1": found["arms"]["round-2"], "unled": found["arms"]["round-2"]}
    found["gains"] |= {"round-1 - real": gain(0.05, 0.02, 0.08), "unled - unaligned": gain(0.01, -0.02, 0.03)}
    plain = headline(found)
    found["val_choices"] = {"round": "round-2"}
    assert headline(found) == plain
    found["val_choices"] = {"round": "round-1"}
    sentence, more = headline(found)
    assert sentence.startswith("Aligned images (round 1) add 5.0 points")
    points = "+4.1 points over real images alone (95 % interval 1.2 to 7.0)"
    assert more[0] == f"Validation images chose round 1; the last round, round 2, has {points}."
    assert more[1].startswith("Alignment alone (after round 2), without the lead, is not shown to differ")
    found["split"] = "val"  # where the choice flatters itself
    sentence, more = headline(found)
    assert sentence.startswith("Aligned images (round 2) add 4.1 points")
    assert more[0] == "Validation images chose round 1: +5.0 points over real images alone (95 % interval 2.0 to 8.0)."
    assert more[2].startswith("Alignment alone, without the lead, is not shown to differ")


def test_the_headline_tells_alignment_and_the_pick_apart() -> None:
    found = results()
    found["arms"]["unpicked"] = found["arms"]["round-2"]
    found["gains"]["unpicked - unaligned"] = gain(0.01, -0.02, 0.03)
    more = headline(found)[1]
    assert more[0].startswith("The method, alignment and pick, beats unaligned images by 2.0 points")
    assert more[1].startswith("Alignment alone, without the pick, is not shown to differ from unaligned images: +1.0")
    assert more[2].startswith("The method is not shown to differ from rejection sampling")


def test_the_headline_tells_the_lead_apart_too() -> None:
    found = results()
    found["arms"] |= dict.fromkeys(("unpicked", "unled"), found["arms"]["round-2"])
    found["gains"] |= {"unled - unaligned": gain(0.01, -0.02, 0.03), "round-2 - feedback": gain(0.02, 0.01, 0.03)}
    judged = {"mean": 0.2, "ci95": [0.1, 0.3], "n": 96}
    found["judge_gains"] = {"unled - unaligned": judged, "unpicked - unaligned": judged | {"mean": 0.25}}
    more = headline(found)[1]
    assert more[0].startswith("The method, alignment, lead and pick, beats unaligned images by 2.0 points")
    assert more[1].startswith("Alignment alone, without the lead and the pick, is not shown to differ from unaligned")
    assert more[2].startswith("The method beats unaligned images that the critic led and picked alike by 2.0 points")
    assert more[-2].startswith("Alignment alone changes")
    assert more[-2].endswith("+20.0 points (95 % interval 10.0 to 30.0, 96 images of the same noise).")
    assert more[-1].startswith("With the critic's lead it changes")
    del found["arms"]["unpicked"]
    assert "unaligned images that the critic led alike by 2.0 points" in headline(found)[1][2]


def test_an_interval_that_touches_zero_shows_nothing() -> None:
    assert headline(results((0.02, 0.0, 0.04)))[0].startswith("No gain shown")
    assert headline(results((-0.02, -0.04, 0.0)))[0].startswith("No gain shown")


def test_alignment_is_not_credited_with_what_lead_and_pick_do() -> None:
    found = results() | {"led": True, "picked": True}  # without the arms that would tell them apart
    more = headline(found)[1]
    assert more[0].startswith("The method, alignment, lead and pick, beats unaligned images by 2.0 points")
    assert not any("lignment alone" in said for said in more)
    assert headline(results() | {"led": True, "picked": False})[1][0].startswith("The method, alignment and lead,")
    assert headline(results() | {"led": False, "picked": False}) == headline(results())


def test_the_headline_says_nothing_of_what_was_not_measured() -> None:
    missing = results()
    missing["gains"]["round-2 - unaligned"] |= {"mean": None, "ci95": [None, None]}
    missing["gains"]["round-2 - real"] |= {"rare": None, "rare_ci95": [None, None]}
    _, more = headline(missing)
    assert len(more) == 2
    assert "rejection" in more[0]
    assert more[1].startswith("Alignment alone changes how often an independent judge recognises the class by +3.0")
    missing["gains"]["round-2 - real"] |= {"mean": None, "ci95": None}
    sentence, _ = headline(missing)
    assert sentence == (
        "How aligned images (round 2) compare with real images alone was not measured "
        "(n = 1600 test images of 20 patients, 3 trainings)."
    )
    del missing["gains"]
    assert headline(missing) == ("These results do not compare aligned images with real images alone.", [])


def test_rare_classes_without_images_are_not_spoken_of() -> None:
    found = results()
    found |= {"rare_classes": ["hook", EVIL]}
    found["arms"]["round-2"] = found["arms"]["round-2"] | {"per_class": {"hook": None, "clip applier": 0.4, EVIL: 0.3}}
    more = headline(found)[1]
    assert more[2].startswith(f"Rare classes ({EVIL}): +8.2 points")
    assert more[3] == "Not measured, since no test image shows them: hook."


def test_the_table_has_a_line_an_arm() -> None:
    lines = results_table(results()).splitlines()
    assert len(lines) == 5
    assert lines[0].split("  ")[0] == "arm"
    assert re.split(r"\s{2,}", lines[4]) == [
        "round-2",
        "60.0 (55.0 to 65.0)",
        "40.0 (30.0 to 50.0)",
        "+4.1 (1.2 to 7.0)",
        "1040",
    ]
    assert len({len(line) for line in lines}) == 1


def test_numbers_and_names_as_people_write_them() -> None:
    assert [number(0.1234), number(-0.012, sign=True), number(-0.0001), number(None), number(float("nan"))] == [
        "12.3", "−1.2", "0.0", "–", "–",
    ]  # fmt: skip
    assert span([0.012, -0.07]) == "1.2 to −7.0"
    assert [span([None, None]), span([0.1, float("nan")]), span(None)] == ["–", "–", "–"]
    assert estimate(0.041, [0.012, 0.07], sign=True) == "+4.1 (1.2 to 7.0)"
    assert estimate(None, [None, None]) == estimate(float("nan"), None) == "not measured"
    assert [verdict({"ci95": pair}) for pair in ([0.1, 0.2], [-2, -1], [0, 1], [None, None], None)] == [
        "gain", "harm", "none", "unmeasured", "unmeasured",
    ]  # fmt: skip
    assert [duration(3.21), duration(59.0), duration(75.0), duration(3720.0)] == [
        "3.2 s",
        "59 s",
        "1 min 15 s",
        "1 h 02 min",
    ]
    assert short("a\nb" + "c" * 40) == "a b" + "c" * 20 + "…"
    assert (arm_name("round-3"), arm_name("real"), arm_name("own")) == ("aligned, round 3", "real only", "own")
    assert contrast_name("round-2 - real-pretrained") == "round 2 − real pretrained"
    assert last_round(["round-2", "real", "round-10"]) == "round-10"
    assert last_round(["real"]) is None
