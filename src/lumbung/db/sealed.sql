-- name: exist$
-- Whether anything is encrypted with a key of the key file.
SELECT EXISTS (SELECT FROM partner) OR EXISTS (SELECT FROM store) OR EXISTS (SELECT FROM channel_app)
