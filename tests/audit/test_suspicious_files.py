import pandas as pd
import pytest

from melanoma_lab.audit.dataset_audit import find_suspicious_files

pytestmark = pytest.mark.unit

FACTS = ["format", "width", "height", "colours", "constant"]


@pytest.mark.parametrize(
    ("image_id", "fact", "reasons"),
    [
        ("a.jpg", ("JPEG", 200, 150, "", False), []),
        ("a.jpg", ("JPEG", 200, 150, "profile", False), ["profile"]),
        ("a.JPG", ("MPO", 200, 150, "", False), []),
        ("a.jpg", ("PNG", 200, 150, "", False), ["holds PNG, not what .jpg says"]),
        ("a.png", ("PNG", 31, 90, "", False), ["tiny: 31x90 pixels"]),
        ("a.png", ("PNG", 100, 301, "", False), ["extreme shape: 100x301 pixels"]),
        ("a.tif", ("TIFF", 90, 90, "", True), ["a single colour"]),
    ],
)
def test_what_looks_wrong(image_id, fact, reasons):
    files = pd.DataFrame([fact], columns=FACTS, index=["d"])
    found = find_suspicious_files(pd.DataFrame({"image_id": [image_id], "digest": ["d"]}), files)
    assert [row["reason"] for row in found] == reasons
