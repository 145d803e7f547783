"""What leaves the repository for somebody else to check: audit packs, bundles, receipts, pages."""
