"""NIfTI in two files, header and voxels, is read as nibabel reads it; Analyze 7.5 does not say where left is."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
from scans import oblique_affines, voxels

from meddift.cli.outputs import Outputs
from meddift.errors import ImageError, OptionsError
from meddift.io import describe_image, read_points, read_volume

AFFINE = oblique_affines()[11]


@pytest.mark.parametrize("kind", [nibabel.Nifti1Pair, nibabel.Nifti2Pair])
@pytest.mark.parametrize("names", [("p.hdr", "p.img"), ("p.hdr.gz", "p.img.gz")])
def test_a_pair_is_read_by_either_of_its_names_as_nibabel_reads_it(tmp_path, kind, names):
    image = kind(voxels(), AFFINE)
    image.set_qform(AFFINE, 1)
    image.header.set_slope_inter(2, -1000)
    nibabel.save(image, tmp_path / names[0])
    wanted = nibabel.load(tmp_path / names[0])
    for name in names:
        volume = read_volume(tmp_path / name)
        np.testing.assert_array_equal(volume.data, wanted.get_fdata())
        np.testing.assert_allclose(volume.grid.affine, wanted.affine, atol=1e-5)
        described = describe_image(tmp_path / name)
        assert described["bytes"] == sum((tmp_path / one).stat().st_size for one in names)


def test_names_in_capital_letters_belong_together(tmp_path):
    nibabel.save(nibabel.Nifti1Pair(voxels(), AFFINE), tmp_path / "p.hdr")
    (tmp_path / "p.hdr").rename(tmp_path / "P.HDR")
    (tmp_path / "p.img").rename(tmp_path / "P.IMG")
    np.testing.assert_array_equal(read_volume(tmp_path / "P.IMG").data, voxels())


def test_a_pair_whose_voxels_are_cut_off_is_refused_by_their_name(tmp_path):
    nibabel.save(nibabel.Nifti1Pair(voxels(), AFFINE), tmp_path / "p.hdr")
    content = (tmp_path / "p.img").read_bytes()
    (tmp_path / "p.img").write_bytes(content[:-1])
    with pytest.raises(ImageError, match=r"p\.img is cut off"):
        read_volume(tmp_path / "p.hdr")


@pytest.mark.parametrize("kind", [nibabel.AnalyzeImage, nibabel.Spm99AnalyzeImage])
def test_analyze_is_refused_where_scans_and_where_points_are_expected(tmp_path, kind):
    nibabel.save(kind(voxels(), np.diag([-1.0, 1, 1, 1])), tmp_path / "old.hdr")
    for name in ("old.hdr", "old.img"):
        for reader in (read_volume, read_points):
            with pytest.raises(ImageError, match=r"old\.hdr is in the old Analyze 7\.5 format"):
                reader(tmp_path / name)


def test_no_file_of_an_image_is_overwritten(tmp_path):
    nibabel.save(nibabel.Nifti1Pair(voxels(), AFFINE), tmp_path / "p.hdr")
    (tmp_path / "s.nhdr").write_text(
        "NRRD0005\ntype: short\ndimension: 3\nsizes: 4 5 6\nspace: RAS\nspace origin: (0,0,0)\nendian: little\n"
        "space directions: (1,0,0) (0,1,0) (0,0,1)\nencoding: raw\ndata file: LIST\na.raw\nb.raw\n"
    )
    for name in ("a.raw", "b.raw"):
        (tmp_path / name).write_bytes(bytes(120))
    for source, output in (("p.img", "p.hdr"), ("p.hdr", "p.img"), ("s.nhdr", "b.raw")):
        with pytest.raises(OptionsError, match="is also an input"):
            Outputs(inputs=(tmp_path / source,)).check([tmp_path / output])
