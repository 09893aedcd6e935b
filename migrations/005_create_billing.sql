-- oldest-release: 0.1.0
-- Inbox of billing events: the raw event is kept first, once, and processed afterwards; whose it is may be found out then.

-- Up Migration

CREATE TABLE billing_events (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  user_id text CHECK (length(user_id) BETWEEN 1 AND 100),
  org_id text CHECK (length(org_id) BETWEEN 1 AND 100),
  owner_id text GENERATED ALWAYS AS (coalesce(org_id, user_id)) STORED,
  event_type text NOT NULL CHECK (length(event_type) BETWEEN 1 AND 100),
  -- Serves: has this event been received already.
  stripe_event_id text NOT NULL CHECK (length(stripe_event_id) BETWEEN 1 AND 255),
  raw_event jsonb NOT NULL,
  amount_minor bigint, -- in the currency's smallest unit; negative for a refund
  currency text CHECK (currency ~ '^[A-Z]{3}$'),
  status text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'completed', 'failed')),
  attempts integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
  error_code text CHECK (error_code ~ '^[a-z0-9_]{1,64}$'),
  created_at timestamptz NOT NULL, -- when Stripe made it: events arrive out of order
  received_at timestamptz NOT NULL DEFAULT now(),
  processed_at timestamptz,
  CONSTRAINT billing_events_stripe_event_key UNIQUE (stripe_event_id),
  CONSTRAINT billing_events_amount_check CHECK ((amount_minor IS NULL) = (currency IS NULL)),
  CONSTRAINT billing_events_processed_check CHECK (status <> 'completed' OR processed_at IS NOT NULL)
);

-- Serves: the billing history of an owner, newest first.
CREATE INDEX billing_events_owner_idx ON billing_events (owner_id, created_at DESC);
-- Serves: the events still to be processed, oldest first.
CREATE INDEX billing_events_pending_idx ON billing_events (received_at) WHERE status = 'pending';

ALTER TABLE billing_events ENABLE ROW LEVEL SECURITY;
ALTER TABLE billing_events FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON billing_events FOR SELECT TO iora_api
  USING (owner_id = (SELECT nullif(current_setting('app.owner_id', true), '')));
-- The raw event stays unread by the service: it holds what Stripe knows of a person.
GRANT SELECT (id, user_id, org_id, owner_id, event_type, amount_minor, currency, status, created_at, received_at, processed_at)
  ON billing_events TO iora_api;

-- Down Migration

DROP TABLE billing_events;
