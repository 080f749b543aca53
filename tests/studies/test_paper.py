"""What the paper prints."""

from __future__ import annotations

import pytest

from refocus.studies import paper


def test_the_papers_numbers_are_those_of_its_text() -> None:
    """Cells read by eye from the paper."""
    assert len(paper.cells()) == 1344
    assert paper.published(1, "ViT-B", "relevance", "objectnet") == 42.2
    assert paper.published(1, "ViT-B", "relevance", "objectnet", masks="unsupervised") == 40.8
    assert paper.published(1, "AR-L", "original", "imagenet-a", "top5") == 61.0
    assert paper.published(2, "DeiT-B", "gradmask", "si-location") == 34.1
    assert paper.published(3, "AR-L", "relevance", "imagenet-segmentation", "miou") == 61.0
    assert paper.published(4, "ViT-B", "no-classification", "imagenet") == 77.8
    assert paper.published(10, "AR-B", "relevance", "objectnet", classes="untrained") == 48.4
    assert paper.published(1, "ViT-L", "gradmask", "imagenet") is None


def test_the_papers_average_change_follows_from_its_rows() -> None:
    """+5.8 on ImageNet-A and +5.0 on ObjectNet with annotated masks (its Results)."""
    for suite, claimed in (("imagenet-a", 5.8), ("objectnet", 5.0)):
        changes = []
        for model in paper.MODELS:
            after, before = (
                paper.published(1, model, method, suite) for method in ("relevance", "original")
            )
            assert after is not None
            assert before is not None
            changes.append(after - before)
        assert sum(changes) / len(changes) == pytest.approx(claimed, abs=0.06)
