from sweep.versions import unlike, versions


def test_versions_are_compared_by_name() -> None:
    """All that differ, each with both versions."""
    assert unlike("torch 2.10.0, numpy 2.3.1", "torch 2.11.0, numpy 2.3.1") == "torch 2.10.0 (here 2.11.0)"
    assert unlike("torch 2.10.0, timm absent", "torch 2.11.0, timm 1.0.9").count("(here") == 2
    assert versions().startswith("torch ") and unlike(versions(), versions()) == ""
