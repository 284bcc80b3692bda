"""The page: valid, accessible, silent on the network, right in its numbers; seen in a real browser if there is one."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import html5lib
import pytest
from made_runs import make_run, write_rows

from vrbench.report import page
from vrbench.report.chart import TOP, chart
from vrbench.report.collect import collect
from vrbench.report.curves import Curve
from vrbench.report.style import look_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

EVIL = "<script>alert(1)</script>"
SVG = "{http://www.w3.org/2000/svg}"
HTML = "{http://www.w3.org/1999/xhtml}"


def make_study(root: Path) -> Path:
    """Two optimizers with 8 seeds; one arm with eos rows, samples and a diverged run; evil names throughout."""
    from PIL import Image

    for seed in range(8):
        for optimizer, value in (("adamw", 0.8), ("vradam", 0.9)):
            lost = optimizer == "adamw" and seed == 0
            folder = make_run(
                root, value + seed / 1000, optimizer=optimizer, seed=seed, status="diverged" if lost else "finished"
            )
            eos = {"eos/ratio": 0.9, "eos/sharpness": 3.0} if optimizer == "vradam" else {}
            steps = (10,) if lost else (10, 20, 30)
            write_rows(
                folder,
                [{"step": s, "train/loss": 1 / s, "val/accuracy": value * s / 30 + seed / 1000, **eos} for s in steps],
            )
            if seed == 0:
                Image.new("RGB", (900, 300), (200, 30, 30)).save(folder / "samples.png")
    make_run(root, 0.5, task=EVIL.replace("/", "_"), metric=EVIL, optimizer=EVIL)
    return root


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("study")
    return page.write(collect([make_study(root / "runs")]), root / "out" / "page.html")


def text_of(element: Any) -> str:
    return " ".join("".join(element.itertext()).split())


@pytest.fixture(scope="module")
def tree(made: Path) -> Any:
    """Parsed by the rules of HTML, where any error in the markup is an exception."""
    return html5lib.HTMLParser(strict=True).parse(made.read_text(encoding="utf-8"))


def test_the_markup_is_sound(tree: Any) -> None:
    identities = [element.get("id") for element in tree.iter() if element.get("id")]
    assert len(identities) == len(set(identities)) > 5
    for element in tree.iter():
        if (target := element.get("href", "")).startswith("#"):
            assert target[1:] in identities
    for table in tree.iter(f"{HTML}table"):
        assert text_of(table.find(f"{HTML}caption"))
        assert all(cell.get("scope") for cell in table.iter(f"{HTML}th"))
    assert all(image.get("alt") for image in tree.iter(f"{HTML}img"))
    levels = [int(element.tag[-1]) for element in tree.iter() if re.fullmatch(r".*\}h[1-6]", str(element.tag))]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_what_records_say_is_escaped(made: Path, tree: Any) -> None:
    scripts = [script for script in tree.iter(f"{HTML}script") if script.get("type") != "application/json"]
    assert len(scripts) == 1
    assert "alert" not in scripts[0].text
    assert EVIL not in made.read_text(encoding="utf-8")
    assert EVIL in {text_of(cell) for cell in tree.iter(f"{HTML}th")}  # shown as text: the optimizer's name
    assert any(EVIL in text_of(caption) for caption in tree.iter(f"{HTML}figcaption"))  # and the metric's


def test_the_policy_allows_this_script_and_this_style_and_nothing_else(made: Path, tree: Any) -> None:
    policy = tree.find(f".//{HTML}meta[@http-equiv]").get("content")
    for tag, directive in (("style", "style-src"), ("script", "script-src")):
        (own,) = [element for element in tree.iter(f"{HTML}{tag}") if element.get("type") is None]
        digest = base64.b64encode(hashlib.sha256(own.text.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "http" not in policy
    assert not any(name == "style" or name.startswith("on") for element in tree.iter() for name in element.attrib)


def test_verdicts_come_first_and_are_those_of_the_tables(tree: Any) -> None:
    first = next(element for element in tree.iter(f"{HTML}h2"))
    assert text_of(first) == "Verdicts"
    (verdict,) = tree.findall(f".//{HTML}ul[@class='verdicts']/{HTML}li")
    assert text_of(verdict) == "better digits, mlp: by how much is open, for these settings"
    heading = next(element for element in tree.iter(f"{HTML}h3"))
    assert text_of(heading) == "vradam against adamw"


def test_notes_are_one_list_and_each_is_there_once(tree: Any) -> None:
    (listed,) = [element for element in tree.iter(f"{HTML}ol") if element.get("class") == "notes"]
    lines = [text_of(item) for item in listed]
    assert len(lines) == len(set(lines)) > 4
    assert [item.get("id") for item in listed] == [f"note{place}" for place in range(1, len(lines) + 1)]
    referring = [paragraph for paragraph in tree.iter(f"{HTML}p") if text_of(paragraph).startswith("Notes ")]
    told: set[int] = set()
    for paragraph in referring:
        for first, last in re.findall(r"(\d+)(?:–(\d+))?", text_of(paragraph)):
            told |= set(range(int(first), int(last or first) + 1))
    assert told == set(range(1, len(lines) + 1))
    outside = [text_of(note) for note in tree.iter(f"{HTML}p") if note.get("class") == "note"]
    assert [line for line in outside if line in lines] == []
    assert sum("bad: diverged, or beyond" in line for line in lines) == 1


def test_notes_are_numbered_in_stretches() -> None:
    notes = page.Footnotes()
    assert notes.of(["a", "b", "a", "c"]) == [(1, 3)]
    assert notes.of(["d", "a", "c"]) == [(1, 1), (3, 4)]
    assert notes.of([]) == []
    assert notes.lines == ["a", "b", "c", "d"]


def test_figures_of_cost_and_tuning_are_there_where_there_are_data(tmp_path: Path) -> None:
    for lr in (0.001, 0.01, 0.1):
        for seed in range(2):
            make_run(tmp_path, 0.5 + lr, seed=seed, settings={"lr": lr})
    text = page.render(collect([tmp_path]))
    tree: Any = html5lib.HTMLParser(strict=True).parse(text)
    images = {image.get("alt"): image.get("src") for image in tree.iter(f"{HTML}img")}
    assert {alt.partition(".")[0] for alt in images} == {"cost, digits, mlp", "lr sensitivity, digits, mlp"}
    for source in images.values():
        kind, _, data = source.partition(",")
        assert kind == "data:image/svg+xml;base64"
        assert b"<svg" in base64.b64decode(data)
    assert [heading for heading in map(text_of, tree.iter(f"{HTML}h3")) if heading in ("Tuning", "Cost")] == [
        "Tuning", "Cost",
    ]  # fmt: skip


def test_sharpness_without_a_threshold_is_drawn_too(tmp_path: Path) -> None:
    folder = make_run(tmp_path, 0.5)
    write_rows(folder, [{"step": step, "train/loss": 1 / step, "eos/sharpness": 3.0} for step in (1, 2)])
    text = page.render(collect([tmp_path]))
    assert "<h3>Edge of stability</h3>" in text
    assert 'id="eos1-1"' in text


def test_a_chart_reads_what_the_curve_has() -> None:
    nan = float("nan")
    one = Curve([10.0, 20.0, 30.0], [1.0, 2.0, 3.0], [nan, 1.5, 2.0], [nan, 2.5, 4.0], 3, [(20.0, 2.0)])
    drawn = chart("loss", [("a", look_of("a"), one)])
    assert drawn.description == "loss over steps. At the end: a 3 [2, 4]"
    assert drawn.cursor["lines"] == [
        {"steps": [10, 20, 30], "mean": [1.0, 2.0, 3.0], "low": [None, 1.5, 2.0], "high": [None, 2.5, 4.0]}
    ]
    assert [text for _, text in drawn.x_ticks] == ["10", "15", "20", "25", "30"]
    (line,) = drawn.lines
    assert [x for x, _ in line.marks] == [54.0, 217.0, 380.0]
    heights = [y for _, y in line.marks]
    assert heights[0] > heights[1] > heights[2]
    assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[2], abs=0.2)
    assert line.ends == [(217.0, TOP + 6.0)]  # at the step where the run diverged, at the worse edge
    assert line.band.startswith("M217 ")


def test_the_page_has_the_looks_and_the_plot_of_the_figures(tree: Any) -> None:
    """Colours and marks are the optimizer's own, and the forest plot is the first picture."""
    first = next(tree.iter(f"{HTML}figure"))
    assert first.get("class") == "forest"
    told = text_of(first)
    assert "vradam − adamw: digits, mlp" in told
    assert re.search(r"better \(n = 8, 1 diverged\): Δ accuracy \+0\.1", told)
    rows = [row for row in tree.iter(f"{HTML}tr") if row.find(f"{HTML}td/{SVG}svg") is not None]
    for name in ("adamw", "vradam"):
        own = [row for row in rows if text_of(row.find(f"{HTML}th")).startswith(name)]
        classes = {path.get("class") for row in own for path in row.iter(f"{SVG}path")}
        assert classes == {f"line c{look_of(name).hue}"}
        assert len(own) > 1


def test_a_hundred_long_runs_make_a_page_of_less_than_3_mb(tmp_path: Path) -> None:
    rows = [
        {"step": s, "train/loss": 1.2345678 / s, "val/accuracy": s / 1e5, "val/loss": 3.3333 / s} for s in range(1, 401)
    ]
    for seed in range(2):
        for place in range(50):
            folder = make_run(tmp_path, 0.5, task=f"task{place % 5}", seed=seed, settings={"lr": 0.001 + place})
            write_rows(folder, rows)
    written = page.write(collect([tmp_path]), tmp_path / "page.html")
    assert written.stat().st_size < 3e6
    assert "2 are left out" in written.read_text(encoding="utf-8")


def provenance(root: Path) -> dict[str, list[str]]:
    """The lines of the page's only provenance list, by heading."""
    tree: Any = html5lib.HTMLParser(strict=True).parse(page.render(collect([root])))
    found: dict[str, list[str]] = {}
    (listed,) = tree.iter(f"{HTML}dl")
    for element in listed:
        if element.tag == f"{HTML}dt":
            lines = found.setdefault(text_of(element), [])
        else:
            lines.extend(text_of(code) for code in element.iter(f"{HTML}code"))
    return found


def test_provenance_tells_project_and_vrbench_apart(tmp_path: Path) -> None:
    here, there, none = (
        {"sha": "a" * 40, "dirty": True},
        {"sha": "b" * 40, "dirty": False},
        {"sha": None, "dirty": None},
    )
    for seed, (project, vrbench) in enumerate([(here, here), (here, there), (none, there), (here, none)]):
        make_run(tmp_path, 0.5, seed=seed, git=project, vrbench_git=vrbench)
    make_run(tmp_path, 0.5, seed=9, schema=1, git=there)
    mine, installed = f"{'a' * 40} with uncommitted changes", "b" * 40
    assert sorted(provenance(tmp_path)["code"]) == sorted(
        f"{line} (1 runs)"
        for line in (
            mine,
            f"project: {mine}; vrbench: {installed}",
            f"project: no checkout; vrbench: {installed}",
            f"project: {mine}; vrbench: an installed package",
            installed,
        )
    )


def test_provenance_tells_the_machine_and_whether_test_was_read(tmp_path: Path) -> None:
    gpu = {
        "device": "cuda",
        "gpu": "NVIDIA H100",
        "threads": 4,
        "processes": 2,
        "cpu": "AMD EPYC 7B13",
        "system": "Linux",
    }
    make_run(tmp_path, 0.5, machine=gpu)
    for seed in (1, 2):
        make_run(tmp_path, 0.5, seed=seed, test_read=False)
    make_run(tmp_path, 0.5, schema=1, seed=3)
    found = provenance(tmp_path)
    assert found["machines"] == [
        "cpu of a x86_64 Linux machine, 1 threads (3 runs)",
        "cuda (NVIDIA H100) of a AMD EPYC 7B13 Linux machine, 4 threads, 2 processes (1 runs)",
    ]
    assert found["test split"] == ["read (2 runs)", "not read (2 runs)"]


# ---- in a browser ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        names = ("chromium", "chromium-browser", "google-chrome")
        program = next(filter(None, map(shutil.which, names)), playwright.chromium.executable_path)
        if not Path(program).exists():
            pytest.skip("no Chromium on this machine")
        found = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def heard() -> list[str]:
    """Whatever a page says on its console or asks the network for."""
    return []


def opened(browser: Browser, made: Path, heard: list[str], **options: Any) -> Page:
    tab = browser.new_page(**options)
    tab.on("console", lambda message: heard.append(message.text))
    tab.on("pageerror", lambda error: heard.append(str(error)))
    tab.on("request", lambda request: heard.append(request.url))
    tab.goto(made.as_uri())
    return tab


def test_the_page_is_silent_and_fits_a_phone(browser: Browser, made: Path, heard: list[str]) -> None:
    for width in (1280, 360, 320):
        tab = opened(browser, made, heard, viewport={"width": width, "height": 800})
        assert tab.evaluate("document.documentElement.scrollWidth") == width
        tab.close()
    assert [url for url in heard if not url.startswith("data:")] == [made.as_uri()] * 3


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 360)])
def test_axe_finds_nothing(browser: Browser, made: Path, heard: list[str], scheme: str, width: int) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    tab = opened(browser, made, heard, color_scheme=scheme, viewport={"width": width, "height": 800})
    found = axe.Axe().run(tab).response
    assert [(issue["id"], issue["nodes"][0]["html"]) for issue in found["violations"]] == []
    assert len(found["passes"]) > 10
    tab.close()


def test_no_row_is_a_tower_on_a_phone(browser: Browser, heard: list[str], tmp_path: Path) -> None:
    """Long texts keep a width at which they can be read, and the table scrolls."""
    space = {
        f"optimizer.{name}": {"low": 0.0001, "high": 0.1, "log": True} for name in ("lr", "beta3", "alpha1", "eps")
    }
    tuned = {"search": "s", "trials": 4, "budget": 4, "sampler": "random", "seeds": [0], "metric": "val/accuracy",
             "params": dict.fromkeys(space, 0.001), "space": space, "edges": []}  # fmt: skip
    make_run(tmp_path, 0.5, tuned=tuned)
    tab = opened(browser, page.write(collect([tmp_path]), tmp_path / "page.html"), heard,
                 viewport={"width": 360, "height": 800})  # fmt: skip
    assert tab.evaluate("Math.max(...[...document.querySelectorAll('tr')].map(row => row.clientHeight))") < 200
    assert tab.evaluate("document.documentElement.scrollWidth") == 360
    tab.close()


def test_arrow_keys_and_the_pointer_read_the_curve(browser: Browser, made: Path, heard: list[str]) -> None:
    tab = opened(browser, made, heard, viewport={"width": 360, "height": 800})
    figure = tab.locator("figure.chart", has=tab.get_by_text("validation accuracy", exact=True)).first
    slider, step, values = figure.locator("input"), figure.locator("output"), figure.locator("td.value")
    assert (step.text_content(), slider.get_attribute("aria-valuetext")) == ("30", "step 30")
    slider.focus()
    tab.keyboard.press("ArrowLeft")
    assert step.text_content() == "20"
    mean = 0.9 * 20 / 30 + 3.5 / 1000
    assert values.all_text_contents()[1].startswith(f"{mean:.4g} [")
    assert (slider.get_attribute("aria-valuetext") or "").startswith("step 20: adamw (1 of 8 diverged) 0.5")
    tab.keyboard.press("Home")
    assert step.text_content() == "10"
    box = figure.locator("svg").first.bounding_box()
    assert box is not None
    figure.locator("svg").first.hover(position={"x": box["width"] * 377 / 400, "y": box["height"] / 2})
    assert step.text_content() == "30"
    tab.close()


def test_everything_is_there_without_a_script_and_in_print(browser: Browser, made: Path, heard: list[str]) -> None:
    tab = opened(browser, made, heard, java_script_enabled=False)
    assert tab.locator("figure.chart .line").count() > 4
    assert tab.locator("input[type=range]:visible").count() == 0
    tab.close()
    tab = opened(browser, made, heard)
    tab.emulate_media(media="print")
    tab.set_viewport_size({"width": 718, "height": 1000})  # A4 within the margins
    assert tab.evaluate("document.documentElement.scrollWidth") == 718
    assert tab.locator("input[type=range]:visible").count() == 0
    assert tab.pdf(format="A4")[:5] == b"%PDF-"
    tab.close()


def test_a_script_in_the_page_that_is_not_its_own_does_not_run(browser: Browser, made: Path, heard: list[str]) -> None:
    bad = made.with_name("bad.html")
    bad.write_text(made.read_text(encoding="utf-8").replace("<main>", "<main><script>document.title = 'bad'</script>"))
    tab = opened(browser, bad, heard)
    assert tab.title() != "bad"
    assert any("Content Security Policy" in line for line in heard)
    tab.close()


def test_the_cursor_data_are_strict_json(tree: Any) -> None:
    blocks = [script.text for script in tree.iter(f"{HTML}script") if script.get("type") == "application/json"]
    for block in blocks:
        json.loads(block, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert len(blocks) >= 5
