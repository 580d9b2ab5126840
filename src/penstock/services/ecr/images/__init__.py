"""Images of repositories: what `penstock image build` made on this machine."""
