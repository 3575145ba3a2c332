"""What tests share: fakes, cases, pictures, processes, servers."""
