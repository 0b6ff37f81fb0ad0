//! Questions about campaigns.

use http::Method;

use super::{
    Client, ClientError,
    wire::{
        CampaignId, CampaignOrder, CampaignPlan, CampaignProgress, NewCampaign, Page, ReportLine,
        WithReason,
    },
};

impl Client {
    /// Starts a campaign.
    pub async fn start_campaign(&self, new: &NewCampaign) -> Result<CampaignProgress, ClientError> {
        self.call(Method::POST, "/v1/campaigns", Some(new)).await
    }

    /// What a campaign would do.
    pub async fn plan_campaign(&self, new: &NewCampaign) -> Result<CampaignPlan, ClientError> {
        let target = "/v1/campaigns/plan";
        self.call(Method::POST, target, Some(new)).await
    }

    /// Campaigns, the newest first.
    pub async fn campaigns(
        &self,
        after: Option<&str>,
    ) -> Result<Page<CampaignProgress>, ClientError> {
        self.page("/v1/campaigns", after).await
    }

    /// A page of a campaign's report: of what failed for good, or of all.
    pub async fn report(
        &self,
        id: CampaignId,
        failed: bool,
        after: Option<&str>,
    ) -> Result<Page<ReportLine>, ClientError> {
        let path = format!("/v1/campaigns/{id}/report?failed={failed}");
        self.page(&path, after).await
    }

    /// Pauses, resumes, cancels a campaign, or tries again what failed for good.
    pub async fn order(
        &self,
        id: CampaignId,
        order: CampaignOrder,
        reason: Option<String>,
    ) -> Result<CampaignProgress, ClientError> {
        let target = format!("/v1/campaigns/{id}/{}", order.as_str());
        let body = WithReason { reason };
        self.call(Method::POST, &target, Some(&body)).await
    }

    /// A campaign's progress.
    pub async fn campaign(&self, id: CampaignId) -> Result<CampaignProgress, ClientError> {
        self.get(&format!("/v1/campaigns/{id}")).await
    }
}
