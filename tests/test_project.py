"""Files for those who join: citation, workflows, templates and hooks agree with the project."""

import re
import tomllib
from pathlib import Path

import yaml

import handful

ROOT = Path(__file__).parents[1]
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())


def test_the_citation_is_of_this_version_and_has_the_paper_of_every_method():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["version"] == handful.__version__
    assert cited["authors"] == [{"name": "The handful developers"}]
    known = {i["value"] for r in cited["references"] for i in r.get("identifiers", ())}
    methods = (ROOT / "docs/methods.md").read_text()
    papers = re.findall(r"\*\*Paper\.\*\*(.+?)\n\n", methods, re.DOTALL)
    named = {f"arXiv:{x}" for text in papers for x in re.findall(r"\[arXiv:([\d.]+)\]", text)}
    assert named - known <= {"arXiv:2506.03582"}  # named for its idea; Nigam et al. are cited


def test_the_workflow_tries_every_python_that_the_package_is_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    said = [c.rpartition(" ")[2] for c in project["classifiers"] if ":: Python :: 3." in c]
    matrix = WORKFLOW["jobs"]["quick"]["strategy"]["matrix"]
    assert matrix["python"] == said
    assert {name.split("-")[0] for name in matrix["os"]} == {"ubuntu", "macos", "windows"}


def test_hooks_are_the_tools_of_make_lint():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    entries = {hook["entry"].removeprefix(".venv/bin/") for hook in hooks}
    lint = (ROOT / "Makefile").read_text().partition("\nlint:")[2].partition("\n\n")[0]
    tools = {line.partition("$(BIN)/")[2] for line in lint.splitlines() if "$(BIN)/" in line}
    folders = " src tests benchmarks examples scripts"
    assert entries == {tool.removesuffix(folders) for tool in tools}


def test_a_report_of_a_fault_asks_for_version_command_and_record():
    form = yaml.safe_load((ROOT / ".github/ISSUE_TEMPLATE/fault.yml").read_text())
    asked = {field.get("id"): field for field in form["body"]}
    assert "handful --version" in asked["version"]["attributes"]["description"]
    assert asked["command"]["validations"]["required"]
    assert "run.json" in asked["record"]["attributes"]["label"]


def test_the_files_that_the_security_policy_names_exist():
    named = re.findall(r"`(tests/[^`]+)`", (ROOT / "SECURITY.md").read_text())
    assert named
    assert all((ROOT / name).exists() for name in named)
