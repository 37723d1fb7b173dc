"""The part of HDF5 that transform files use, read strictly and without the HDF5 library.

Format: https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html (version 3.0). Groups and data sets as ITK,
3D Slicer, ANTs and h5py write them by default: object headers of versions 1 and 2, groups as symbol tables, with their
links in the header or in one heap, data in one piece or in chunks packed by deflate. The library is not used, because
damaged files of a few kilobytes make it run forever (HDF5 2.0 in h5py 3.16) or crash the process (HDF5 1.12 in
ITK 5.4); Python can catch neither.
"""

from meddift.io.hdf5.data import numbers, text
from meddift.io.hdf5.frame import Frame
from meddift.io.hdf5.groups import members
from meddift.io.hdf5.writing import Tree, write_hdf5

__all__ = ["Frame", "Tree", "members", "numbers", "text", "write_hdf5"]
