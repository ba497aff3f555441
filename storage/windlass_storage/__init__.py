"""For authors of stores and snapshotters: metadata, directories, trees and errors of the disk."""
