"""Do shards, buckets and archives give what one process gives for a folder?"""
