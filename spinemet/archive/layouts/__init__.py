"""Every layout that an archive may have. The first that recognises a key owns it; the folder recognises all."""

from spinemet.archive.layout import Layout
from spinemet.archive.layouts.dicomweb import DicomwebLayout
from spinemet.archive.layouts.folder import FolderLayout
from spinemet.archive.layouts.nifti import NiftiLayout
from spinemet.archive.layouts.packed import TarLayout, ZipLayout

LAYOUTS: tuple[Layout, ...] = (ZipLayout(), TarLayout(), NiftiLayout(), DicomwebLayout(), FolderLayout())
