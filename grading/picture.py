"""The README's picture of the page: grading/page.png.

python grading/picture.py        needs selenium, Chromium and its driver (Debian: apt install chromium chromium-driver)
"""

import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from common import cli
from common.support.errors import UserError

SIZE = (1200, 1500)


def main():
    try:
        from selenium import webdriver
    except ImportError as error:
        raise UserError("selenium is not installed; pip install selenium") from error
    driver, chromium = shutil.which("chromedriver"), shutil.which("chromium")
    if not driver or not chromium:
        raise UserError("Chromium or its driver is not installed (Debian: apt install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ("--headless=new", "--no-sandbox", "--hide-scrollbars", f"--window-size={SIZE[0]},{SIZE[1]}"):
        options.add_argument(flag)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        browser.get((HERE / "index.html").as_uri())
        browser.save_screenshot(str(HERE / "page.png"))
    finally:
        browser.quit()


if __name__ == "__main__":
    cli.entry_point(main)
