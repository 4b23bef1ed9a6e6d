"""The lesson in JupyterLab, in a real browser: what a student sees and presses.

Needs Chromium with its driver, and selenium; where one is missing the tests are skipped. JupyterLab
serves a copy of the project on this machine only, with a tiny Flowers102 and three short epochs.
"""

import base64
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time

import nbformat
import pytest
from PIL import Image
from test_notebook import ROOT, code_cells
from test_notebook import project as project  # a fixture: the copy with a tiny Flowers102

pytestmark = pytest.mark.slow
PATIENCE = 1800.0  # seconds; a busy machine is no fault of the page
THREE_EPOCHS = """
import transfer_learning_config as config
from flowers_utils.storage import resume

config.PROFILES["smoke"]["epochs"] = 3
resume.SECONDS_BETWEEN_SAVES = 0.0  # so that a stop after the first epoch can go on
"""
SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},  # all cells can be measured
}
# What the page calls a cell: its widget, found by the id that stands in the file.
CELL = "jupyterapp.shell.currentWidget.content.widgets.find(w => w.model.id === arguments[0])"
STATES = """
return jupyterapp.shell.currentWidget.content.widgets.filter(w => w.model.type === 'code').map(
  w => ({id: w.model.id, count: w.model.executionCount, state: w.model.executionState,
         outputs: w.model.outputs.toJSON()}))
"""
FIGURES = """
const cells = jupyterapp.shell.currentWidget.content.widgets;
return cells.flatMap(w => [...w.node.querySelectorAll('.jp-OutputArea-output img')].map(
  image => ({id: w.model.id, left: image.getBoundingClientRect().left,
             right: image.getBoundingClientRect().right, width: image.clientWidth,
             inside: image.closest('.jp-OutputArea-output').scrollWidth
                     <= image.closest('.jp-OutputArea-output').clientWidth + 1})))
"""
# How far the brightness of each text output is from that of the page, of 255.
CONTRASTS = """
const grey = colour => colour.match(/[\\d.]+/g).slice(0, 3).reduce((sum, x) => sum + x / 3, 0);
const page = getComputedStyle(document.querySelector('.jp-NotebookPanel')).backgroundColor;
return [...document.querySelectorAll('.jp-OutputArea-output')].filter(o => o.innerText.trim()).map(
  output => Math.abs(grey(getComputedStyle(output).color) - grey(page)))
"""
# Bars are gone when their work is done: this remembers the widest that each cell showed.
WATCH = """
window.widest = {};
setInterval(() => {
  for (const bar of document.querySelectorAll('.jp-OutputArea .progress-bar')) {
    const node = bar.closest('.jp-Cell');
    const cells = jupyterapp.shell.currentWidget.content.widgets;
    const id = cells.find(w => w.node === node).model.id;
    widest[id] = Math.max(widest[id] || 0, bar.clientWidth);
  }
}, 100);
"""


def wait_for(condition, what):
    """The first true answer of `condition`; fails with `what` was waited for."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if answer := condition():
            return answer
        time.sleep(0.2)
    pytest.fail(f"waited in vain for {what}")


@pytest.fixture(scope="module")
def lab(project, tmp_path_factory):
    """The address of a JupyterLab that serves the project's copy, and is ended afterwards."""
    own = tmp_path_factory.mktemp("jupyter")
    for name, settings in SETTINGS.items():
        file = own / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(settings), encoding="utf-8")
    startup = project / "ipython" / "profile_default" / "startup"
    (startup / "10-three-epochs.py").write_text(THREE_EPOCHS, encoding="utf-8")
    notebook = nbformat.read(ROOT / "resnet18_training.ipynb", as_version=4)
    for cell in notebook.cells:
        cell.source = re.sub(r'^PROFILE = "full"$', 'PROFILE = "smoke"', cell.source, flags=re.M)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(notebook, project / "lesson.ipynb")
    places = {"JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces"}
    places |= {f"JUPYTER_{kind}_DIR": kind.lower() for kind in ("CONFIG", "DATA", "RUNTIME")}
    env = {**os.environ, **{key: str(own / place) for key, place in places.items()}}
    of_project = {"FLOWERS_DATA_DIR": "share", "TORCH_HOME": "torch_home", "IPYTHONDIR": "ipython"}
    env |= {key: str(project / place) for key, place in of_project.items()}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--port=0"]
    command += ["--ip=127.0.0.1", "--IdentityProvider.token=flowers"]
    command += ["--LabApp.expose_app_in_browser=True"]  # how a test asks for a cell's state
    with (own / "log.txt").open("w") as log:
        server = subprocess.Popen(command, cwd=project, env=env, stdout=log, stderr=log)
    try:
        found = wait_for(lambda: list((own / "runtime").glob("jpserver-*.json")), "JupyterLab")
        url = json.loads(wait_for(found[0].read_text, "its address"))["url"]
        yield f"{url}lab/tree/lesson.ipynb?token=flowers"
    finally:
        server.terminate()  # it ends its kernels
        server.wait(60)


@pytest.fixture(scope="module")
def browser():
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    driver = shutil.which("chromedriver")
    if not program or not driver:
        pytest.skip("Chromium or its driver (chromedriver) is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for word in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "window-size=1280,900"):
        options.add_argument(f"--{word}")
    chromium = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield chromium
    chromium.quit()


class Page:
    """The notebook as the browser shows it."""

    def __init__(self, driver):
        self.driver = driver

    def find(self, selector, cell_id=None):
        """The elements in sight that `selector` names, in one cell if its id is given."""
        where = self.driver if cell_id is None else self.cell(cell_id)
        return [e for e in where.find_elements("css selector", selector) if e.is_displayed()]

    def cell(self, cell_id):
        return self.driver.execute_script(f"return {CELL}.node", cell_id)

    def state(self, cell_id):
        return next(s for s in self.driver.execute_script(STATES) if s["id"] == cell_id)

    def menu(self, title, command):
        """Choose an item of the menu bar, with the mouse."""
        (top,) = [e for e in self.find(".lm-MenuBar-item") if e.text == title]
        top.click()
        item = f".lm-Menu-item[data-command='{command}']"
        wait_for(lambda: self.find(item), f"the menu {title}")[0].click()

    def choose(self, cell_id):
        """Click on a cell's prompt, which makes it the active one."""
        prompt = self.cell(cell_id).find_element("css selector", ".jp-InputPrompt")
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", prompt)
        prompt.click()

    def outputs(self, cell_id):
        return self.state(cell_id)["outputs"]

    def wait_until_idle(self, cell_id):
        wait_for(lambda: self.state(cell_id)["state"] == "idle", f"the end of {cell_id}")

    def theme(self, name):
        command = "jupyterapp.commands.execute('apputils:change-theme', {theme: arguments[0]})"
        self.driver.execute_script(f"return {command}", name)
        time.sleep(2)  # the page fades over

    def width(self, pixels):
        self.driver.set_window_size(pixels, 900)
        self.driver.execute_script("window.dispatchEvent(new Event('resize'))")
        time.sleep(2)


@pytest.fixture(scope="module")
def page(lab, browser):
    """The notebook opened, no cell run yet."""
    browser.get(lab)
    page = Page(browser)
    wait_for(lambda: page.find(".jp-NotebookPanel .jp-CodeCell"), "the notebook")
    wait_for(lambda: page.find(".jp-Notebook-ExecutionIndicator[data-status='idle']"), "the kernel")
    browser.execute_script(WATCH)
    return page


@pytest.fixture(scope="module")
def finished(page):
    """The notebook after Run All, as the lesson says it: by the menu."""
    page.menu("Run", "runmenu:restart-and-run-all")
    wait_for(lambda: page.find(".jp-Dialog .jp-mod-accept"), "the question")[0].click()
    last = code_cells()[-1].id
    wait_for(lambda: page.state(last)["count"] and page.state(last)["state"] == "idle", "the end")
    return page


def test_run_all_finishes_every_cell_without_an_error(finished):
    states = finished.driver.execute_script(STATES)
    assert [s["count"] for s in states] == list(range(1, len(states) + 1))
    assert not [s["id"] for s in states for o in s["outputs"] if o["output_type"] == "error"]


def test_a_bar_grew_while_a_phase_was_trained_and_left_a_line(finished):
    widest = finished.driver.execute_script("return window.widest")
    for phase, title in (("phase1", "Phase 1"), ("phase2", "Phase 2")):
        assert widest[phase] > 100
        assert not finished.find(".progress-bar", phase)
        assert f"{title}: " in finished.cell(phase).text


def test_figures_are_legible_in_a_wide_window_and_whole_in_a_narrow_one(finished):
    finished.width(1280)
    wide = finished.driver.execute_script(FIGURES)
    assert len(wide) > 20 and all(figure["width"] > 500 for figure in wide)
    finished.width(800)
    narrow = finished.driver.execute_script(FIGURES)
    assert len(narrow) == len(wide) and all(figure["inside"] for figure in narrow)
    finished.width(1280)


def test_a_dark_theme_hides_no_text(finished):
    finished.theme("JupyterLab Dark")
    contrasts = finished.driver.execute_script(CONTRASTS)
    finished.theme("JupyterLab Light")
    assert len(contrasts) > 50 and min(contrasts) > 100
    outputs = [o for s in finished.driver.execute_script(STATES) for o in s["outputs"]]
    for png in (o["data"]["image/png"] for o in outputs if "image/png" in o.get("data", {})):
        corner = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGBA").getpixel((0, 0))
        assert corner == (255, 255, 255, 255)  # black on a ground of its own, not on the page's


def test_the_upload_button_can_be_pressed(finished):
    (button,) = finished.find("button.jupyter-button", "photo-button")
    assert button.is_enabled() and button.size["width"] > 50


def test_a_stop_shows_one_sentence_and_the_next_run_goes_on(finished, project):
    for file in (project / "models" / "smoke").glob("*phase2*"):
        file.unlink()
    finished.choose("phase2")
    finished.menu("Run", "runmenu:run")
    wait_for(lambda: "epoch 1/3" in finished.cell("phase2").text, "the first epoch")
    finished.menu("Kernel", "kernelmenu:interrupt")
    finished.wait_until_idle("phase2")
    (error,) = [o for o in finished.outputs("phase2") if o["output_type"] == "error"]
    assert error["ename"] == "Stopped" and len("\n".join(error["traceback"]).splitlines()) <= 2
    assert "saved; run this cell again to go on" in finished.cell("phase2").text
    finished.choose("phase2")
    finished.menu("Run", "runmenu:run")
    wait_for(lambda: "Going on after epoch" in finished.cell("phase2").text, "the second run")
    finished.wait_until_idle("phase2")
    assert "error" not in [o["output_type"] for o in finished.outputs("phase2")]


def test_the_html_export_reads_as_well(finished, project):
    finished.menu("File", "docmanager:save")
    # Of nbconvert's templates only this one hands the alternative texts on.
    export = [sys.executable, "-m", "nbconvert", "--to", "html", "--template", "classic"]
    wait_for(lambda: "Stopped" not in (project / "lesson.ipynb").read_text("utf-8"), "the saving")
    subprocess.run([*export, "lesson.ipynb"], cwd=project, check=True, capture_output=True)
    html = (project / "lesson.html").read_text(encoding="utf-8")
    images = re.findall(r"<img[^>]*>", html)
    assert len(images) > 20 and all(re.search(r'alt="[^"]{20,}"', image) for image in images)
    text = re.sub(r"<(script|style).*?</\1>|<[^>]*>", "", html, flags=re.DOTALL)
    assert not re.findall(r"\$[^$\n]{1,80}\$", text)
